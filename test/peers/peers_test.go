package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestRedisKeepsItsDataWhenKilled(t *testing.T) {
	r := StartRedis(t, RedisOptions{Password: "s3cret", ACL: []string{"user app on >apppw ~app:* +@all"}})
	if got := r.CLI(t, "SET", "app:x", "1"); got != "OK" {
		t.Fatalf("SET answered %q", got)
	}
	r.Kill()
	if _, err := net.Dial("tcp", r.Addr); err == nil {
		t.Fatal("a killed Redis still accepts connections")
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.CLI(t, "GET", "app:x"); got != "1" {
		t.Errorf("after a restart GET answered %q, want 1", got)
	}
	if got := r.CLI(t, "ACL", "LIST"); !strings.Contains(got, "user app on") {
		t.Errorf("ACL LIST: %q has no user app", got)
	}
	if want := "redis://:s3cret@" + r.Addr + "/0"; r.URL() != want {
		t.Errorf("URL %s, want %s", r.URL(), want)
	}
}

func TestMXDelivers(t *testing.T) {
	source := StartPostfixPlatform(t, PostfixPlatformOptions{})
	target := StartDovecot(t, DovecotOptions{})
	for _, test := range []struct {
		name string
		mx   MXOptions
		to   maildirs
	}{
		{"by SMTP to Postfix", MXOptions{NextHop: source.Addr}, source.maildirs},
		{"by LMTP to Dovecot", MXOptions{NextHop: target.LMTP, LMTP: true, RecipientLimit: 2}, target.maildirs},
	} {
		t.Run(test.name, func(t *testing.T) {
			mx := StartMX(t, test.mx)
			out, status := Swaks(t, "--server", mx.Addr, "--from", "a@out.example", "--helo", "out.example",
				"--to", "anna@health.example,ben@roads.example", "--body", "id 4711")
			if status != 0 {
				t.Fatalf("swaks: exit status %d\n%s", status, out)
			}
			for _, mailbox := range []string{"anna@health.example", "ben@roads.example"} {
				got := test.to.WaitMessages(t, mailbox, 1)
				if len(got) != 1 || !bytes.Contains(got[0].Raw, []byte("id 4711")) {
					t.Errorf("%s has %d messages: %s", mailbox, len(got), got)
				}
			}
			WaitFor(t, time.Minute, "empty queue", func() bool { return mx.QueueEmpty(t) })
		})
	}
	if got := fmt.Sprint(target.Mailboxes(t)); got != "[anna@health.example ben@roads.example]" {
		t.Errorf("mailboxes at Dovecot: %s", got)
	}
	if got := len(source.All(t)); got != 2 {
		t.Errorf("%d messages at Postfix, want 2", got)
	}
}

func TestMXQueuesAndTriesAgain(t *testing.T) {
	platform := StartPostfixPlatform(t, PostfixPlatformOptions{})
	mx := StartMX(t, MXOptions{NextHop: platform.Addr})
	platform.Stop()
	Source(t, mx.Addr, SourceOptions{From: "a@out.example", To: "anna@health.example", Messages: 3})
	WaitFor(t, time.Minute, "deferred message", func() bool {
		for _, q := range mx.Queue(t) {
			if q.Queue == "deferred" && len(q.Recipients) == 1 && strings.Contains(q.Recipients[0].Reason, "refused") {
				return true
			}
		}
		return false
	})
	if err := platform.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	platform.WaitMessages(t, "anna@health.example", 3)
	WaitFor(t, time.Minute, "empty queue", func() bool { return mx.QueueEmpty(t) })
}

func TestPostfixPlatformWithMailboxes(t *testing.T) {
	p := StartPostfixPlatform(t, PostfixPlatformOptions{Mailboxes: []string{"anna@health.example", "ben@health.example"}})
	out, _ := Swaks(t, "--server", p.Addr, "--from", "a@out.example", "--to", "nobody@health.example,ben@health.example")
	if !strings.Contains(out, "550 5.1.1") {
		t.Errorf("an unknown mailbox is not refused:\n%s", out)
	}
	p.WaitMessages(t, "ben@health.example", 1)
	if got := fmt.Sprint(p.Mailboxes(t)); got != "[ben@health.example]" {
		t.Errorf("mailboxes %s", got)
	}
}

func TestDovecotWithUsers(t *testing.T) {
	d := StartDovecot(t, DovecotOptions{Users: map[string]string{"anna@health.example": "pw1"}})
	out, status := Swaks(t, "--protocol", "LMTP", "--server", d.LMTP, "--from", "a@out.example",
		"--to", "nobody@health.example")
	if status == 0 || !strings.Contains(out, "550 5.1.1") {
		t.Errorf("an unknown user: exit status %d\n%s", status, out)
	}
	if out, status := Swaks(t, "--protocol", "LMTP", "--server", d.LMTP, "--from", "a@out.example",
		"--to", "anna@health.example", "--header", "Subject: for anna"); status != 0 {
		t.Fatalf("swaks: exit status %d\n%s", status, out)
	}
	out, status = Curl(t, "-u", "anna@health.example:pw1", "imap://"+d.IMAP+"/INBOX;MAILINDEX=1;SECTION=HEADER.FIELDS%20(SUBJECT)")
	if status != 0 || !strings.Contains(out, "for anna") {
		t.Errorf("read by IMAP: exit status %d\n%s", status, out)
	}
	if _, status := Curl(t, "-u", "anna@health.example:wrong", "imap://"+d.IMAP+"/"); status == 0 {
		t.Error("a wrong password was accepted")
	}
	if got := d.Doveadm(t, "search", "-u", "anna@health.example", "ALL"); strings.Count(got, "\n") != 1 {
		t.Errorf("doveadm search: %q, want one line", got)
	}
}

func TestSourceSinkHAProxy(t *testing.T) {
	sink := StartSink(t)
	proxy := StartHAProxy(t, sink.Addr)
	Source(t, proxy.Addr, SourceOptions{Messages: 20, Sessions: 2, Length: 1000})
	if out, status := CurlMail(t, proxy.Addr, "a@out.example", []string{"b@in.example"}, []byte("Subject: x\n\ny\n")); status != 0 {
		t.Errorf("curl: exit status %d\n%s", status, out)
	}
	lmtp := StartSink(t, "-L")
	Source(t, lmtp.Addr, SourceOptions{LMTP: true, Messages: 2, Recipients: 3})
}

// Postfix in front of a proxy as Postfix itself documents it (SMTPD_PROXY_README): the
// yardstick of the benchmark.
func TestPostfixWithProxyFilter(t *testing.T) {
	Need(t, "postfix")
	sink := StartSink(t)
	mx := StartMX(t, MXOptions{NextHop: sink.Addr, Settings: map[string]string{"smtpd_proxy_filter": sink.Addr}})
	Source(t, mx.Addr, SourceOptions{To: "anna@health.example", Messages: 10, Sessions: 2, Length: 10240})
	// Postfix logs through a process of its own, after its answer.
	passed := func() int { return strings.Count(mx.Log(), "proxy-accept") }
	for deadline := time.Now().Add(time.Minute); passed() < 10 && time.Now().Before(deadline); {
		time.Sleep(pollEvery)
	}
	if n := passed(); n != 10 {
		t.Errorf("%d messages passed by the filter, want 10\n%s", n, mx.Log())
	}
}

func TestPausedPeerIsSilent(t *testing.T) {
	sink := StartSink(t)
	if err := sink.Pause(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", sink.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 1)
	conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := conn.Read(buf); !os.IsTimeout(err) {
		t.Fatalf("read from a paused peer: %v, want a timeout", err)
	}
	if err := sink.Resume(); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Read(buf); err != nil {
		t.Fatalf("read after Resume: %v", err)
	}
}

func TestStartFailsWhenThePeerEnds(t *testing.T) {
	Need(t, "redis")
	p := &Process{name: "redis-server", addr: freeAddr(t), out: &tail{max: logKept}, make: redisWithBadConfig(t)}
	defer p.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Start(ctx); err == nil || !strings.Contains(err.Error(), "no-such-setting") {
		t.Errorf("Start: %v, want the server's complaint", err)
	}
}

// recorder is a TB that notes how a test would have ended.
type recorder struct {
	TB
	fatal, skip string
}

func (r *recorder) Helper()      {}
func (r *recorder) Name() string { return "TestX" }
func (r *recorder) Fatalf(format string, args ...any) {
	if r.fatal == "" && r.skip == "" {
		r.fatal = fmt.Sprintf(format, args...)
	}
}
func (r *recorder) Skipf(format string, args ...any) { r.skip = fmt.Sprintf(format, args...) }

func TestNeed(t *testing.T) {
	t.Setenv("SKIP_PEERS", "")
	t.Setenv("PATH", t.TempDir())
	missing := &recorder{}
	Need(missing, "swaks")
	if !strings.Contains(missing.fatal, "apt-get install swaks") {
		t.Errorf("a missing peer: %q, want it to fail and to name the package", missing.fatal)
	}
	unknown := &recorder{}
	Need(unknown, "sendmial")
	if !strings.Contains(unknown.fatal, "peers.txt") {
		t.Errorf("an unlisted peer: %q, want it to fail", unknown.fatal)
	}

	file := filepath.Join(t.TempDir(), "skipped")
	t.Setenv("SKIP_PEERS", "1")
	t.Setenv("PEERS_SKIPPED_FILE", file)
	for range 2 {
		skipped := &recorder{}
		Need(skipped, "swaks", "curl")
		if skipped.fatal != "" || !strings.Contains(skipped.skip, "swaks, curl") {
			t.Errorf("with SKIP_PEERS=1: fatal %q, skip %q", skipped.fatal, skipped.skip)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "TestX\nTestX\n" {
		t.Errorf("recorded %q, %v; want a line for each test", got, err)
	}
}

// A test that skips by itself would not be counted, and nobody would miss it. What is called t,
// b, f or tb is a test; waves have a Skip too.
func TestNothingElseSkips(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	skip := regexp.MustCompile(`\b([tbf]|tb)\.(Skip|Skipf|SkipNow)\(`)
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != root {
			return nil // another package's tests made it, and have removed it
		}
		if err != nil {
			return err
		}
		if d.IsDir() && (path == filepath.Join(root, "test", "peers") || d.Name() == "node_modules" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if at := skip.FindIndex(source); at != nil {
			t.Errorf("%s:%d skips a test; use peers.Need", path, 1+bytes.Count(source[:at[0]], []byte("\n")))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func redisWithBadConfig(t *testing.T) func() *exec.Cmd {
	file := filepath.Join(t.TempDir(), "redis.conf")
	writeFile(t, file, []byte("no-such-setting 1\n"))
	return func() *exec.Cmd { return exec.Command("redis-server", file) }
}

// A Dovecot that was killed while it wrote to a mailbox leaves a lock. After the next start nobody
// waits for it.
func TestDovecotAfterAKill(t *testing.T) {
	d := StartDovecot(t, DovecotOptions{})
	anna := []string{"-sS", "-m", "20", "imap://" + d.IMAP + "/INBOX", "-u", "anna@health.example:secret"}
	mustRun(t, "curl", append(anna, "-T", "peers.txt")...)
	lists, err := filepath.Glob(filepath.Join(d.Dir(), "*", "dovecot-uidlist"))
	if err != nil || len(lists) != 1 {
		t.Fatal(lists, err)
	}
	d.Kill()
	writeFile(t, lists[0]+".lock", nil)
	if err := os.Remove(lists[0]); err != nil { // so that it has to be written
		t.Fatal(err)
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "curl", append(anna, "-X", "NOOP")...)
}
