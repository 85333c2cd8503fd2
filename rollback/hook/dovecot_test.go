package hook_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailcutover/rollback/hook"
	"mailcutover/routing"
	"mailcutover/test/peers"
)

// example returns the path of an example hook.
func example(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../configs/hooks", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// session is an IMAP session that was tried.
type session struct {
	conn net.Conn
	in   *bufio.Reader
}

// login tries to log in and returns the answer.
func login(t *testing.T, address, user string) (session, string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := session{conn, bufio.NewReader(conn)}
	s.line(t)
	fmt.Fprintf(conn, "a LOGIN %s secret\r\n", user)
	return s, s.line(t)
}

// line returns the next line, or why there is none.
func (s session) line(t *testing.T) string {
	t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	text, err := s.in.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return text
}

// The example hooks end sessions, keep logins out, and let them in again: of the
// mailboxes that they are told, and of nobody else.
func TestDovecotExamples(t *testing.T) {
	peers.Need(t, "jq")
	deny := filepath.Join(peers.TempDir(t, "deny"), "deny")
	if err := os.WriteFile(deny, []byte("kept@other.example\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := peers.StartDovecot(t, peers.DovecotOptions{
		First: "passdb {\n driver = passwd-file\n deny = yes\n args = " + deny + "\n}",
	})
	boxes := []hook.Mailbox{
		{ID: routing.MailboxID{1}, Address: "anna@health.example", Login: "anna@health.example"},
		{ID: routing.MailboxID{2}, Address: "ben@health.example", Login: "ben@health.example"},
		{ID: routing.MailboxID{3}, Address: "room@health.example"}, // nobody logs in to it
	}
	call := hook.Call{Operation: "op", Agency: "health", Mailboxes: boxes}
	shut := &hook.Hook{Platform: "ox", Kind: hook.Close, Command: append([]string{example(t, "dovecot-close"), deny}, d.DoveadmCommand(t)...)}
	open := &hook.Hook{Platform: "ox", Kind: hook.Open, Command: []string{example(t, "dovecot-open"), deny}}

	anna, said := login(t, d.IMAP, "anna@health.example")
	if !strings.HasPrefix(said, "a OK") {
		t.Fatalf("anna before: %s", said)
	}
	carl, said := login(t, d.IMAP, "carl@police.example")
	if !strings.HasPrefix(said, "a OK") {
		t.Fatalf("carl before: %s", said)
	}
	for range 2 { // doing it twice is doing it once
		if r, err := shut.Run(t.Context(), call); err != nil || r.Done != 3 {
			t.Fatalf("close: %+v, %v", r, err)
		}
	}
	if said := anna.line(t); !strings.HasPrefix(said, "* BYE") && said != "EOF" {
		t.Errorf("anna's session after the close: %q", said)
	}
	if _, said := login(t, d.IMAP, "anna@health.example"); !strings.HasPrefix(said, "a NO") {
		t.Errorf("anna after the close: %s", said)
	}
	fmt.Fprint(carl.conn, "b NOOP\r\n")
	if said := carl.line(t); !strings.HasPrefix(said, "b OK") {
		t.Errorf("carl's session, of another agency: %q", said)
	}
	for range 2 {
		if r, err := open.Run(t.Context(), call); err != nil || r.Done != 3 {
			t.Fatalf("open: %+v, %v", r, err)
		}
	}
	if _, said := login(t, d.IMAP, "ben@health.example"); !strings.HasPrefix(said, "a OK") {
		t.Errorf("ben after the open: %s", said)
	}
	if left, _ := os.ReadFile(deny); string(left) != "kept@other.example\n" {
		t.Errorf("denied afterwards: %q", left)
	}
}

// Where the file of denied users can't be written anew, as on a full disk, it stays as it is: nobody
// of another agency is let in.
func TestDovecotOpenThatFails(t *testing.T) {
	peers.Need(t, "jq")
	dir := t.TempDir()
	grep := "#!/bin/sh\ncase $1 in -v*) echo 'grep: write error' >&2; exit 2 ;; esac\nexec /bin/grep \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "grep"), []byte(grep), 0o755); err != nil {
		t.Fatal(err)
	}
	deny := filepath.Join(dir, "deny")
	const denied = "anna@health.example\ncarl@police.example\n"
	if err := os.WriteFile(deny, []byte(denied), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), example(t, "dovecot-open"), deny)
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	cmd.Stdin = strings.NewReader(`{"mailbox":"1","login":"anna@health.example"}` + "\n")
	if out, err := cmd.CombinedOutput(); err == nil || strings.Contains(string(out), `"ok":true`) {
		t.Errorf("it says that it was done: %v\n%s", err, out)
	}
	if left, _ := os.ReadFile(deny); string(left) != denied {
		t.Errorf("denied afterwards: %q", left)
	}
}

// A doveadm that fails is said to have failed, mailbox by mailbox.
func TestDovecotExampleWithoutDovecot(t *testing.T) {
	deny := filepath.Join(t.TempDir(), "deny")
	h := &hook.Hook{Platform: "ox", Kind: hook.Close, Attempts: 1, Command: []string{example(t, "dovecot-close"), deny, "/bin/false"}}
	r, err := h.Run(t.Context(), hook.Call{Agency: "health", Mailboxes: []hook.Mailbox{{ID: routing.MailboxID{1}, Login: "anna"}}})
	if err == nil || len(r.Failed) != 1 || !strings.Contains(r.Failed[0].Error, "doveadm kick ended with 1") {
		t.Errorf("%+v, %v", r, err)
	}
}

// A login is denied, kicked and let in again as it is spelled, also with a backslash.
func TestDovecotLoginAsItIs(t *testing.T) {
	peers.Need(t, "jq")
	deny := filepath.Join(t.TempDir(), "deny")
	call := hook.Call{Agency: "health", Mailboxes: []hook.Mailbox{{ID: routing.MailboxID{1}, Login: `AMT\anna`}}}
	shut := &hook.Hook{Platform: "ox", Kind: hook.Close, Attempts: 1, Command: []string{example(t, "dovecot-close"), deny, "/bin/sh", "-c", `[ "$0 $1" = 'kick AMT\anna' ]`}}
	if _, err := shut.Run(t.Context(), call); err != nil {
		t.Error(err)
	}
	if now, _ := os.ReadFile(deny); string(now) != "AMT\\anna\n" {
		t.Errorf("denied: %q", now)
	}
	open := &hook.Hook{Platform: "ox", Kind: hook.Open, Attempts: 1, Command: []string{example(t, "dovecot-open"), deny}}
	if _, err := open.Run(t.Context(), call); err != nil {
		t.Error(err)
	}
	if now, _ := os.ReadFile(deny); len(now) > 0 {
		t.Errorf("denied afterwards: %q", now)
	}
}
