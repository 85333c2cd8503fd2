package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// waitEnd waits for the node's process to end, and returns how long it took.
func (n *node) waitEnd(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	select {
	case <-n.Ended():
		return time.Since(began)
	case <-time.After(patience):
		t.Fatal("the node did not end")
		return 0
	}
}

// SIGTERM takes no new mail and lets what is under way end; the second one doesn't wait.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	n, exchange, _ := startPair(t, setup{})
	n.addAgency("unmoved", "anna")
	under := mustDial(t, n.smtp, "EHLO")
	under.envelope(t, "anna@unmoved.example")
	under.want(t, "DATA", "354 ")
	if err := under.send("X-Test-Id: 1\r\n\r\nfirst half\r\n"); err != nil {
		t.Fatal(err)
	}
	idle := mustDial(t, n.smtp, "EHLO")
	idleLMTP := mustDial(t, n.lmtp, "LHLO")
	between := mustDial(t, n.smtp, "EHLO")
	between.envelope(t, "anna@unmoved.example")
	if err := n.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]*wire{"SMTP": idle, "LMTP": idleLMTP} {
		if got := w.rest(); len(got) != 1 || !strings.HasPrefix(got[0], "421 4.3.2 ") {
			t.Errorf("idle %s connection: %q", name, got)
		}
	}
	waitFor(t, "new connections to be refused", func() bool {
		w, err := dial(n.smtp)
		if err == nil {
			w.conn.Close()
		}
		return err != nil
	})
	// A transaction that was begun may still send its message.
	if got := between.message(t, withID(2)); !strings.HasPrefix(got, "250 ") {
		t.Errorf("transaction under way: %s", got)
	}
	if got := between.rest(); len(got) != 1 || !strings.HasPrefix(got[0], "421 ") {
		t.Errorf("behind its message: %q", got)
	}
	if err := under.send("second half\r\n.\r\n"); err != nil {
		t.Fatal(err)
	}
	under.want(t, "", "250 ")
	n.waitEnd(t)
	if out := n.Output(); !strings.Contains(out, "node stops") || strings.Contains(out, "exit status") {
		t.Errorf("it did not end in good order:\n%s", out)
	}
	if stored := exchange.Stored(); len(stored) != 2 {
		t.Errorf("exchange has %d messages, want 2", len(stored))
	}

	// Started again it is as before; and two signals end it at once.
	n.Stop()
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stuck := mustDial(t, n.smtp, "EHLO")
	stuck.envelope(t, "anna@unmoved.example")
	stuck.want(t, "DATA", "354 ")
	if err := stuck.send("X-Test-Id: 3\r\n\r\nhalf\r\n"); err != nil {
		t.Fatal(err)
	}
	for i, seen := range []string{`"msg":"signal received"`, ""} {
		if err := n.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(i, err)
		}
		if seen != "" {
			waitFor(t, "the first signal to be seen", func() bool { return strings.Count(n.Output(), seen) == 2 })
		}
	}
	if took := n.waitEnd(t); took > 20*time.Second {
		t.Errorf("the second signal took %s", took)
	}
	for _, got := range stuck.rest() {
		if got[0] == '2' {
			t.Errorf("half a message was answered %q", got)
		}
	}
	if stored := exchange.Stored(); len(stored) != 2 {
		t.Errorf("exchange has %d messages, want 2", len(stored))
	}
}

// SIGHUP takes a whole configuration over or nothing of it, and says what is wrong.
func TestReload(t *testing.T) {
	t.Parallel()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := peers.TempDir(t, "tls")
	renew := func() {
		t.Helper()
		_, keyFile, _, err := ca.WriteFiles(dir, "node.example.org")
		if err == nil {
			err = os.Chmod(keyFile, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	renew()
	n, exchange, _ := startPair(t, setup{listener: fmt.Sprintf("tls: {mode: starttls, cert_file: %q, key_file: %q}", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))})
	other := startPlatform(t, platformtest.Options{})
	n.addAgency("unmoved", "anna")
	reload := func(config, says string) {
		t.Helper()
		before := strings.Count(n.Output(), says)
		n.write("config.yaml", config)
		if err := n.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		waitFor(t, fmt.Sprintf("%q in the log", says), func() bool { return strings.Count(n.Output(), says) > before })
	}
	serial := func(w *wire) string {
		t.Helper()
		w.startTLS(t)
		return w.conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	id := 0
	arrives := func(at *platformtest.Platform) {
		t.Helper()
		id++
		before := len(at.Stored())
		if got := sendOne(n.smtp, id, "anna@unmoved.example"); !strings.HasPrefix(got, "250 ") || len(at.Stored()) != before+1 {
			t.Errorf("message %d: %s, %d more on its platform", id, got, len(at.Stored())-before)
		}
	}
	first := mustDial(t, n.smtp, "EHLO")
	old := serial(first)
	arrives(exchange)
	good := n.config()
	show := n.must("config", "show", "--changed")

	// A transaction that was begun stays with the platform that it began with.
	under := mustDial(t, n.smtp, "EHLO")
	under.envelope(t, "anna@unmoved.example")
	renew()
	reload(strings.Replace(good, exchange.Addr(), other.Addr(), 1), `"msg":"configuration reloaded"`)
	before := len(exchange.Stored())
	if got := under.message(t, withID(100)); !strings.HasPrefix(got, "250 ") || len(exchange.Stored()) != before+1 {
		t.Errorf("transaction under way: %s", got)
	}
	arrives(other)
	if now := serial(mustDial(t, n.smtp, "EHLO")); now == old {
		t.Error("the certificate is still the old one")
	}
	first.want(t, "EHLO out.example", "250") // and old connections are still there

	for _, bad := range []struct{ from, to, says string }{
		{"routing: {", "routing: {postmastr: x, ", "postmastr"},
		{"approval: none", "approval: perhaps", "approval"},
		{other.Addr(), "nowhere", "platforms[exchange].outside.hosts"},
		{n.smtp, "127.0.0.1:1", "listeners[mx].address"},
		{"node: node.example.org", "node: other.example.org", "node"},
		{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "nothing.pem"), "cert_file"},
		{"listeners:", "listeners: [", "config.yaml"},
	} {
		config := strings.Replace(strings.Replace(good, exchange.Addr(), other.Addr(), 1), bad.from, bad.to, 1)
		reload(config, `"msg":"configuration not reloaded"`)
		// The last such line may still be that of the command before.
		waitFor(t, fmt.Sprintf("%s -> %s: the log to name %q", bad.from, bad.to, bad.says), func() bool {
			out := n.Output()
			return strings.Contains(out[strings.LastIndex(out, `"msg":"configuration not reloaded"`):], bad.says)
		})
		arrives(other)
		// The command says the same, to the operator who asked.
		if _, errs, code := n.command("config", "reload", "--reason", "test"); code == 0 || !strings.Contains(errs, bad.says) {
			t.Errorf("%s -> %s: reload: exit code %d: %s", bad.from, bad.to, code, errs)
		}
	}
	reload(good, `"msg":"configuration reloaded"`)
	arrives(exchange)
	if again := n.must("config", "show", "--changed"); again != show {
		t.Errorf("config show: %s\nwas %s", again, show)
	}
}

// What keeps a node from starting is said at once and as a whole.
func TestBadStart(t *testing.T) {
	t.Parallel()
	n, _, _ := startPair(t, setup{})
	good := n.config()
	// Another node with the same data, or the same port.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	otherData := strings.Replace(good, n.dir+"/data", n.dir+"/data2", 1)
	for _, c := range []struct{ name, config, says string }{
		{"its table is another's", good, "table.db"},
		{"its port is taken", strings.Replace(otherData, n.smtp, ln.Addr().String(), 1), ln.Addr().String()},
		{"two things are wrong", strings.Replace(strings.Replace(good, "approval: none", "approval: 7", 1), "node: node.example.org", "nude: x", 1), "nude"},
	} {
		n.write("second.yaml", c.config)
		_, errs, code := n.command("serve", "--config", filepath.Join(n.dir, "second.yaml"))
		if code == 0 || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit code %d: %s", c.name, code, errs)
		}
	}
}
