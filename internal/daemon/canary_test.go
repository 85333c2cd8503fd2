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
	"mailcutover/rollback/operation"
)

// After a switch a message goes through this node's listener into the canary's mailbox at the
// winning platform, and a login through its other listener finds it there. What goes wrong is
// in the operation's record, with an alarm that goes when all is well again.
func TestCanary(t *testing.T) {
	t.Parallel()
	b, dovecots := newLoginBench(t, listeners, "")
	b.arm()
	for _, d := range dovecots {
		peersReady(t, d.IMAP)
	}
	password := filepath.Join(t.TempDir(), "password")
	// reload takes over the Dovecots as platforms for mail, too, and the canary's password.
	reload := func(secret string) {
		t.Helper()
		if err := os.WriteFile(password, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		b.write(b.a.Addr(), listeners+"operations:\n  canary_wait: 20s\n  canaries: [{agency: health, address: "+anna+", login: "+anna+", password_file: "+password+"}]\n")
		text, err := os.ReadFile(b.path)
		if err != nil {
			t.Fatal(err)
		}
		next := string(text)
		for was, is := range map[string]string{b.a.Addr(): dovecots[0].LMTP, b.b.Addr(): dovecots[1].LMTP} {
			next = strings.ReplaceAll(next, `outside: {hosts: ["`+was+`"]}`, `outside: {protocol: lmtp, hosts: ["`+is+`"]}`)
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
	for _, c := range []struct {
		kind        operation.Kind
		secret      string
		ok          bool
		mail, login string
		dovecot     int
	}{
		{operation.Cutover, "secret", true, "is on ox, " + dovecots[1].LMTP, "was logged in at ox, and found the message", 1},
		{operation.Rollback, "hunter2", false, "is on exchange, " + dovecots[0].LMTP, "login of " + anna, 0},
		{operation.Cutover, "secret", true, "is on ox", "found the message", 1},
	} {
		reload(c.secret)
		op, err := b.operate(c.kind)
		if err != nil || op.Step != operation.StepDone || len(op.Canaries) != 1 {
			t.Fatalf("%s: %+v, %v", c.kind, op, err)
		}
		r := op.Canaries[0]
		if r.OK != c.ok || !strings.Contains(r.Mail, c.mail) || !strings.Contains(r.Login, c.login) {
			t.Errorf("%s: %+v", c.kind, r)
		}
		if strings.Contains(r.Login, "hunter2") {
			t.Errorf("a password in %+v", r)
		}
		if alarmed() == c.ok {
			t.Errorf("%s: alarm %v", c.kind, !c.ok)
		}
		found := false
		for _, m := range dovecots[c.dovecot].WaitMessages(t, anna, 1) {
			found = found || strings.Contains(string(m.Raw), "Subject: canary of health on ")
		}
		if !found {
			t.Errorf("%s: no canary in the mailbox", c.kind)
		}
		v, err := b.api.Operation(t.Context(), string(op.ID))
		if err != nil || len(v.Canaries) != 1 || v.Canaries[0].OK != c.ok {
			t.Errorf("%s: the API says %+v, %v", c.kind, v, err)
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
	b.write(b.a.Addr(), "operations: {canary_wait: 2s, canaries: [{agency: health, address: anna@health.example}]}")
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
