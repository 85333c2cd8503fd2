package daemon

import (
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"mailcutover/internal/platformtest"
	"mailcutover/proxy/probe"
	"mailcutover/rollback/operation"
)

// After a switch a message goes through this node's listener into the canary's mailbox at the
// winning platform, a login by IMAP finds it there and deletes it, and logins by the other protocols reach that
// platform, too. What goes wrong is in the operation's record, in the metrics, and an alarm that goes when all
// is well again.
func TestCanary(t *testing.T) {
	t.Parallel()
	b, dovecots := newLoginBench(t, listeners, "")
	b.arm()
	for _, d := range dovecots {
		for _, addr := range []string{d.IMAP, d.LMTP, d.POP3, d.Sieve, d.Submission} {
			peersReady(t, addr)
		}
	}
	fakes := [2]string{b.a.Addr(), b.b.Addr()}
	password := filepath.Join(t.TempDir(), "password")
	// reload takes over where the platforms take mail, and the canary's password.
	reload := func(secret, wait string, mail [2]string) {
		t.Helper()
		if err := os.WriteFile(password, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		b.write(fakes[0], listeners+"operations:\n  canary_every: 0s\n  canary_wait: "+wait+"\n  canaries: [{agency: health, address: "+anna+", login: "+anna+", password_file: "+password+"}]\n")
		text, err := os.ReadFile(b.path)
		if err != nil {
			t.Fatal(err)
		}
		next := string(text)
		for i := range mail {
			if mail[i] != fakes[i] {
				next = strings.ReplaceAll(next, `outside: {hosts: ["`+fakes[i]+`"]}`, `outside: {protocol: lmtp, hosts: ["`+mail[i]+`"]}`)
			}
		}
		if err := os.WriteFile(b.path, []byte(next), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	alarmed := func() bool {
		for _, a := range b.alarms.List() {
			if a.Key == "canary/health" {
				return true
			}
		}
		return false
	}
	lmtp, err := net.ResolveTCPAddr("tcp", dovecots[1].LMTP)
	if err != nil {
		t.Fatal(err)
	}
	other := probe.Entrance{Addr: lmtp, LMTP: true, Helo: "mx.example"}
	if err := other.Send(t.Context(), anna, []byte("Message-ID: <other@out.example>\r\nSubject: canary of health on ox\r\n\r\nnot ours\r\n")); err != nil {
		t.Fatal(err)
	}
	real := [2]string{dovecots[0].LMTP, dovecots[1].LMTP}
	for _, c := range []struct {
		name         string
		kind         operation.Kind
		secret, wait string
		mail         [2]string // where mail goes
		ok           bool
		said, logins []string
		parts        string
		left         int // messages in the mailbox of the winning side
	}{
		{"well", operation.Cutover, "secret", "60s", real, true, []string{"is on ox, " + dovecots[1].LMTP, "in its mailbox; it was deleted again"},
			[]string{"by submission at ox", "by pop3 at ox", "by sieve at ox", "by imap at ox"}, "+mail+submission+pop3+sieve+imap+mailbox", 1},
		{"a wrong password", operation.Rollback, "hunter2", "60s", real, false, []string{"is on exchange, " + dovecots[0].LMTP},
			[]string{"by submission: ", "by pop3: ", "by sieve: ", "by imap: "}, "+mail-submission-pop3-sieve-imap", 1},
		{"well again", operation.Cutover, "secret", "60s", real, true, []string{"is on ox", "deleted again"}, []string{"by imap at ox"}, "+mail+submission+pop3+sieve+imap+mailbox", 1},
		// The platform takes mail, and it isn't in the mailboxes that its users see.
		{"not in the mailbox", operation.Rollback, "secret", "16s", fakes, false, []string{"is on exchange, " + fakes[0], "but not in the INBOX of its mailbox on exchange"},
			[]string{"by imap at exchange"}, "-mailbox", 1},
	} {
		reload(c.secret, c.wait, c.mail)
		op, err := b.operate(c.kind)
		if err != nil || op.Step != operation.StepDone || len(op.Canaries) != 1 {
			t.Fatalf("%s: %+v, %v", c.name, op, err)
		}
		r := op.Canaries[0]
		parts := ""
		for _, p := range r.Parts {
			parts += map[bool]string{true: "+", false: "-"}[p.OK] + p.Name
		}
		if r.OK != c.ok || !strings.HasSuffix(parts, c.parts) {
			t.Errorf("%s: %s, %+v", c.name, parts, r)
		}
		for _, want := range c.said {
			if !strings.Contains(r.Mail, want) {
				t.Errorf("%s: want %q in %q", c.name, want, r.Mail)
			}
		}
		for _, want := range c.logins {
			if !strings.Contains(r.Login, want) {
				t.Errorf("%s: want %q in %q", c.name, want, r.Login)
			}
		}
		if strings.Contains(r.Text(), "hunter2") {
			t.Errorf("a password in %+v", r)
		}
		// Operations raise and clear it at once, and the desk by what it saw up to two seconds ago.
		until(t, c.name+": the alarm, or its end", func() bool { return alarmed() != c.ok })
		side := 0
		if c.kind == operation.Cutover {
			side = 1
		}
		if got := dovecots[side].Messages(t, anna); len(got) != c.left {
			t.Errorf("%s: %d messages in the mailbox, want %d", c.name, len(got), c.left)
		}
		v, err := b.api.Operation(t.Context(), string(op.ID))
		if err != nil || len(v.Canaries) != 1 || v.Canaries[0].OK != c.ok {
			t.Errorf("%s: the API says %+v, %v", c.name, v, err)
		}
	}
}

// A canary speaks TLS with this node's own certificate only, whatever names it is for.
func TestCanaryKnowsItsListener(t *testing.T) {
	t.Parallel()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	load := func(name string) *certificate {
		certFile, keyFile, _, err := ca.WriteFiles(t.TempDir(), name)
		if err != nil {
			t.Fatal(err)
		}
		c := new(certificate)
		if err := c.load(certFile, keyFile); err != nil {
			t.Fatal(err)
		}
		return c
	}
	right, wrong := load("mail.example"), load("mail.example")
	for _, served := range []*certificate{right, wrong} {
		ln, err := tls.Listen("tcp", "127.0.0.1:0", served.config.Load())
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			there, err := ln.Accept()
			if err != nil {
				return
			}
			_ = there.(*tls.Conn).HandshakeContext(t.Context()) // the client's word counts
			_ = there.Close()
		})
		here, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := canaries{&Daemon{certificates: map[string]*certificate{"imap": right}}}
		err = tls.Client(here, c.ours("imap")).HandshakeContext(t.Context())
		_ = here.Close()
		_ = ln.Close()
		serving.Wait()
		if (err == nil) != (served == right) {
			t.Errorf("the right one: %v, error %v", served == right, err)
		}
	}
}

// Whom a PROXY header is wanted of.
func TestBehind(t *testing.T) {
	for _, c := range []struct {
		net, addr string
		want      bool
	}{
		{"127.0.0.0/8", "0.0.0.0:25", true}, {"::1/128", "[::]:25", true}, {"10.0.0.0/8", "0.0.0.0:25", false},
		{"10.0.0.0/8", "10.1.2.3:25", true}, {"127.0.0.0/8", "10.1.2.3:25", false}, {"127.0.0.0/8", "127.0.0.1:25", true},
	} {
		addr, err := net.ResolveTCPAddr("tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := behind([]netip.Prefix{netip.MustParsePrefix(c.net)}, addr); got != c.want {
			t.Errorf("%s at %s: %v", c.net, c.addr, got)
		}
	}
}

// A canary that is put off for ever costs its time, and nothing else.
func TestCanaryThatNeverArrives(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.arm()
	b.write(b.a.Addr(), "operations: {canary_wait: 8s, canaries: [{agency: health, address: anna@health.example}]}")
	if _, err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.b.SetScript(platformtest.On("RCPT", platformtest.Reaction{Reply: "451 4.2.0 full"}))
	op, err := b.operate(operation.Cutover)
	if err != nil || op.Step != operation.StepDone || len(op.Canaries) != 1 || op.Canaries[0].OK || !strings.Contains(op.Canaries[0].Mail, "451") {
		t.Errorf("%+v, %v", op, err)
	}
	if a, _ := b.replica.State().Agency("health"); !a.Phase.OnTarget() || !a.Phase.Open() {
		t.Errorf("the agency is in phase %s", a.Phase)
	}
}
