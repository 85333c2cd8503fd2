package compose

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/test/peers"
)

// programDir is where the program is while the tests run.
var programDir string

func TestMain(m *testing.M) { os.Exit(peers.Main(m, &programDir, 0)) }

// build builds the program, once in a test process.
var build = sync.OnceValues(func() (string, error) {
	return peers.Build(context.Background(), programDir, "./cmd/mailcutover", false)
})

// container is a service of docker-compose.yml as a process.
type container struct {
	*peers.Process
	api, smtp string
	env       []string
}

// command runs a command of the program towards this node.
func (c *container) command(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = c.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// start starts a service of the program with its command, environment and mounted file; places
// says where, on this machine, what the file names is.
func start(t *testing.T, program, name string, s service, places map[string]string) *container {
	t.Helper()
	const mounted = "/etc/mailcutover/mailcutover.yaml"
	dir := t.TempDir()
	at := func() string { return fmt.Sprintf("127.0.0.1:%d", peers.Port(t)) }
	c := &container{smtp: at()}
	api := at()
	c.api = "http://" + api
	pairs := []string{`address: ":25"`, `address: "` + c.smtp + `"`, `address: ":24"`, `address: "` + at() + `"`, `address: ":8025"`, `address: "` + api + `"`,
		"/var/lib/mailcutover", filepath.Join(dir, "data"), "172.16.0.0/12", "127.0.0.0/8"}
	for from, to := range places {
		pairs = append(pairs, from, to)
	}
	text := string(read(t, s.mounts()[mounted]))
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%s names no %s", s.mounts()[mounted], pairs[i])
		}
	}
	file := filepath.Join(dir, "mailcutover.yaml")
	if err := os.WriteFile(file, []byte(strings.NewReplacer(pairs...).Replace(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	c.env = append(os.Environ(), "MAILCUTOVER_API="+c.api, "MAILCUTOVER_TOKEN=try-out")
	env := os.Environ()
	for key, value := range s.Environment {
		env = append(env, key+"="+value)
	}
	args := strings.Split(strings.ReplaceAll(strings.Join(s.Command, "\n"), mounted, file), "\n")
	health := append(s.Healthcheck.Test[2:], "--ready") // behind CMD and the program
	c.Process = peers.StartProgram(t, peers.Program{
		Name: name,
		Make: func() *exec.Cmd {
			cmd := exec.Command(program, args...)
			cmd.Env = env
			return cmd
		},
		Ready: func(ctx context.Context) error {
			out, err := c.command(ctx, program, health...)
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		},
	})
	return c
}

const patience = 2 * time.Minute

// The services as processes, from the same files: two nodes that share a Redis with a replica
// and three Sentinels, behind Postfix, between two Dovecots whose mailboxes they read, with
// directories. A list made from the directory comes into force; its agency is cut over through
// one node, late mail is swept, and the mailboxes are compared; the primary dies; the other node
// brings the agency back, with the mail that is on the target alone.
func TestRun(t *testing.T) {
	peers.Need(t, "redis", "postfix", "dovecot", "slapd")
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	f, config := load(t)
	primary := peers.StartRedis(t, peers.RedisOptions{Password: requirepass(t), Settings: map[string]string{"masterauth": requirepass(t)}})
	peers.StartReplica(t, primary, peers.RedisOptions{})
	source, target := dovecots(t)
	directory := peers.StartSlapd(t, peers.SlapdOptions{Example: true})
	places := map[string]string{
		`"source:24"`: `"` + source.LMTP + `"`, `"source:143"`: `"` + source.IMAP + `"`,
		`"target:24"`: `"` + target.LMTP + `"`, `"target:143"`: `"` + target.IMAP + `"`,
		"ldap://directory:389": "ldap://" + directory.Addr,
	}
	for i, s := range peers.StartSentinels(t, 3, primary, "") {
		places[config.Table.Redis.Sentinel.Addresses[i]] = s.Addr
	}
	one := start(t, program, "mailcutover", f.Services["mailcutover"], places)
	two := start(t, program, "mailcutover-2", f.Services["mailcutover-2"], places)
	mx := peers.StartMX(t, peers.MXOptions{NextHop: one.smtp})

	must := func(c *container, args ...string) string {
		t.Helper()
		out, err := c.command(t.Context(), program, args...)
		if err != nil {
			t.Fatalf("mailcutover %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	// until repeats a command until it says this: it may be too early.
	until := func(c *container, says string, args ...string) {
		t.Helper()
		var out string
		var err error
		for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
			if out, err = c.command(t.Context(), program, args...); err == nil && strings.Contains(out, says) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("mailcutover %s doesn't say %q: %v\n%s", strings.Join(args, " "), says, err, out)
			}
		}
	}
	const anna = "anna@health.example"
	must(one, "agency", "add", "health", "--source", "source", "--target", "target", "--domain", "health.example", "--reason", "test")
	must(one, "directory", "check")
	lists := t.TempDir()
	must(one, "list", "generate", "--agency", "health", "--out", lists)
	made, err := filepath.Glob(filepath.Join(lists, "*.csv"))
	if err != nil || len(made) != 1 {
		t.Fatalf("lists %v, %v", made, err)
	}
	id := strings.TrimSuffix(filepath.Base(made[0]), ".csv")
	if out := must(one, "list", "check", made[0], "--agency", "health", "--all"); strings.Contains(out, "not-on-target") {
		t.Errorf("the target's directory has them all:\n%s", out)
	}
	must(one, "list", "import", made[0], "--agency", "health", "--reason", "test")
	must(one, "list", "activate", id)
	until(two, "source", "route", "explain", anna)
	if err := send(mx.Addr, anna); err != nil {
		t.Fatal(err)
	}
	source.WaitMessages(t, anna, 1)

	must(one, "agency", "arm", "health", "--reason", "wave 1")
	must(one, "agency", "cutover", "health", "--reason", "wave 1", "--yes")
	if err := send(mx.Addr, anna); err != nil {
		t.Fatal(err)
	}
	target.WaitMessages(t, anna, 1)
	if err := send(mx.Addr, "postmaster@health.example"); err != nil { // an alias in the directory
		t.Fatal(err)
	}
	target.WaitMessages(t, anna, 2)
	// Something still delivers to the source, past the nodes: the sweep brings it.
	if err := deliver(source.LMTP, "LHLO", anna); err != nil {
		t.Fatal(err)
	}
	target.WaitMessages(t, anna, 3)
	if out := must(one, "recall", "status", "--agency", "health"); !strings.Contains(out, "sweep") {
		t.Errorf("no sweep:\n%s", out)
	}
	until(one, "", "verify", "--agency", "health", "--full", "--reason", "test", "--watch") // one may be under way by itself
	out := must(one, "verify", "status")
	if f := strings.Fields(out[strings.Index(out, "\nhealth ")+1:]); len(f) < 12 || strings.Join(f[4:12], " ") != "3 of 3 1 0 0 0 1" {
		t.Errorf("want three mailboxes read, and one message missing, since nothing moved what was there before:\n%s", out)
	}

	// The primary dies: Sentinels promote the replica, and the nodes rejoin by themselves.
	primary.Kill()
	until(two, "", "agency", "rollback", "health", "--reason", "test", "--yes")
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		// The agency is armed: put off if the table is too slow to say that it is where it was.
		err := send(two.smtp, anna)
		if err == nil {
			break
		}
		var reply *textproto.Error
		if !errors.As(err, &reply) || reply.Code != 451 || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	source.WaitMessages(t, anna, 5) // the recall brings two
	if n := len(target.Messages(t, anna)); n != 3 {
		t.Errorf("the target has %d messages, want 3", n)
	}
	// A container that is stopped ends in order.
	for _, c := range []*container{one, two} {
		c.Stop()
	}
}

// send sends a message. Not by net/smtp: it says SMTPUTF8 for every message, and Dovecot 2.3
// has none.
func send(to, rcpt string) error { return deliver(to, "HELO", rcpt) }

// deliver is send with the greeting of another protocol.
func deliver(to, hello, rcpt string) error {
	c, err := textproto.Dial("tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, step := range []struct {
		line string
		code int
	}{
		{"", 220}, {hello + " client.example", 250}, {"MAIL FROM:<you@example.com>", 250}, {"RCPT TO:<" + rcpt + ">", 250}, {"DATA", 354},
		{"Subject: test\r\n\r\nbody\r\n.", 250}, {"QUIT", 221},
	} {
		if step.line != "" {
			if err := c.PrintfLine("%s", step.line); err != nil {
				return err
			}
		}
		if _, _, err := c.ReadResponse(step.code); err != nil {
			return fmt.Errorf("%s: %w", step.line, err)
		}
	}
	return nil
}
