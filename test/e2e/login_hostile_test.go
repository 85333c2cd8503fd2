package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// hostile is what a platform does that a login must survive.
type hostile struct {
	name string
	play func(*fakeLeg)
	// leaks is set where the credentials are sent in good faith.
	leaks bool
	// want is what the client's LOGIN is answered; empty: NO [UNAVAILABLE].
	want string
	// silent is set where only a time limit ends it.
	silent bool
}

// inPlain are those of a platform that is spoken to in plain text on this host.
var inPlain = []hostile{
	{name: "greeting of a megabyte", play: func(l *fakeLeg) {
		l.say("* OK %s\r\n", strings.Repeat("x", 1<<20))
		l.until()
	}},
	{name: "greeting without an end", play: func(l *fakeLeg) { l.endless("x") }},
	{name: "untagged lines without an end", play: func(l *fakeLeg) { l.endless("* NO wait\r\n") }},
	{name: "no greeting", silent: true, play: func(l *fakeLeg) { l.until() }},
	{name: "PREAUTH", play: func(l *fakeLeg) { l.say("* PREAUTH [CAPABILITY IMAP4rev1] you are somebody\r\n"); l.until() }},
	{name: "BYE", play: func(l *fakeLeg) { l.say("* BYE [REFERRAL imap://elsewhere.example/] go there\r\n"); l.until() }},
	{name: "another protocol", play: func(l *fakeLeg) { l.say("220 mail.example ESMTP\r\n"); l.until() }},
	{name: "UNAUTHENTICATE before the login", play: func(l *fakeLeg) {
		l.say("* OK [CAPABILITY IMAP4rev1 SASL-IR UNAUTHENTICATE AUTH=PLAIN] ready\r\n")
		l.afterwards("%s OK done\r\n")
	}},
	{name: "UNAUTHENTICATE behind the login", leaks: true, play: func(l *fakeLeg) {
		l.greet()
		l.afterwards("%s OK [CAPABILITY IMAP4rev1 UNAUTHENTICATE] logged in\r\n")
	}},
	{name: "a foreign tag", leaks: true, play: func(l *fakeLeg) { l.greet(); l.afterwards("zz OK %.0s logged in\r\n") }},
	{name: "a refusal with a foreign tag", leaks: true, play: func(l *fakeLeg) { l.greet(); l.afterwards("zz NO %.0s that is not it\r\n") }},
	{name: "challenges without an end", leaks: true, play: func(l *fakeLeg) {
		l.greet()
		if _, _, ok := l.upToLogin(); ok {
			l.endless("+ \r\n")
		}
	}},
	{name: "answers to the login without an end", leaks: true, play: func(l *fakeLeg) {
		l.greet()
		if _, _, ok := l.upToLogin(); ok {
			l.endless("* CAPABILITY IMAP4rev1\r\n")
		}
	}},
	{name: "a line without an end behind the login", leaks: true, play: func(l *fakeLeg) {
		l.greet()
		if _, _, ok := l.upToLogin(); ok {
			l.endless("y")
		}
	}},
	{name: "a literal of four gigabytes", leaks: true, play: func(l *fakeLeg) {
		l.greet()
		if _, _, ok := l.upToLogin(); ok {
			l.say("* X {4294967295}\r\n")
			l.endless("z")
		}
	}},
	{name: "the end instead of an answer", leaks: true, play: func(l *fakeLeg) { l.greet(); l.upToLogin() }},
	{name: "silence instead of an answer", leaks: true, silent: true, play: func(l *fakeLeg) { l.greet(); l.upToLogin(); l.until() }},
	{name: "not now", leaks: true, play: func(l *fakeLeg) { l.greet(); l.afterwards("%s NO [UNAVAILABLE] not now\r\n") }},
	{name: "too many", leaks: true, want: "a NO [LIMIT]", play: func(l *fakeLeg) { l.greet(); l.afterwards("%s NO [LIMIT] too many\r\n") }},
	{name: "an unknown code", leaks: true, play: func(l *fakeLeg) { l.greet(); l.afterwards("%s NO [XODD] not so\r\n") }},
	{name: "BAD", leaks: true, play: func(l *fakeLeg) { l.greet(); l.afterwards("%s BAD what\r\n") }},
	{name: "Exchange without its backend", leaks: true, play: func(l *fakeLeg) { l.greet(); l.afterwards("%s NO Server Unavailable. 15\r\n") }},
	{name: "wrong password", leaks: true, want: "a NO [AUTHENTICATIONFAILED]", play: func(l *fakeLeg) { l.greet(); l.afterwards("%s NO [AUTHENTICATIONFAILED] that is not it\r\n") }},
	{name: "the end behind OK", leaks: true, want: "a ", play: func(l *fakeLeg) {
		l.greet()
		if tag, _, ok := l.upToLogin(); ok {
			l.say("%s OK [CAPABILITY IMAP4rev1] logged in\r\n", tag)
		}
	}},
}

// beforeTLS are those of a platform that has to show its certificate first.
func beforeTLS(stranger, other *tls.Config) []hostile {
	return []hostile{
		{name: "STARTTLS stripped", play: func(l *fakeLeg) {
			l.say("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")
			for {
				tag, verb, _, ok := l.line()
				switch {
				case !ok:
					return
				case verb == "CAPABILITY":
					l.say("* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n%s OK done\r\n", tag)
				case verb == "STARTTLS":
					l.say("%s BAD unknown command\r\n", tag)
				default:
					l.say("%s OK done\r\n", tag)
				}
			}
		}},
		{name: "STARTTLS refused", play: func(l *fakeLeg) { l.answerSTARTTLS("%s NO not today\r\n"); l.until() }},
		{name: "answers before TLS", play: func(l *fakeLeg) {
			if l.answerSTARTTLS("%s OK begin\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n") {
				l.startTLS(l.f.tls)
				l.afterwards("%s OK logged in\r\n")
			}
		}},
		{name: "PREAUTH before TLS", play: func(l *fakeLeg) { l.say("* PREAUTH ready\r\n"); l.until() }},
		{name: "a stranger's certificate", play: func(l *fakeLeg) {
			if l.answerSTARTTLS("%s OK begin\r\n") && l.startTLS(stranger) {
				l.afterwards("%s OK logged in\r\n")
			}
		}},
		{name: "another host's certificate", play: func(l *fakeLeg) {
			if l.answerSTARTTLS("%s OK begin\r\n") && l.startTLS(other) {
				l.afterwards("%s OK logged in\r\n")
			}
		}},
		{name: "an old TLS", play: func(l *fakeLeg) {
			old := l.f.tls.Clone()
			old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			if l.answerSTARTTLS("%s OK begin\r\n") && l.startTLS(old) {
				l.afterwards("%s OK logged in\r\n")
			}
		}},
		{name: "no TLS behind STARTTLS", play: func(l *fakeLeg) { l.answerSTARTTLS("%s OK begin\r\n"); l.endless("* OK here I am\r\n") }},
	}
}

// greet says who it is, as an honest platform does.
func (l *fakeLeg) greet() { l.say("* OK [CAPABILITY %s] ready\r\n", l.capability()) }

// afterwards answers the login with a line that has its tag.
func (l *fakeLeg) afterwards(answer string) {
	if tag, _, ok := l.upToLogin(); ok {
		l.say(answer, tag)
		l.until()
	}
}

// answerSTARTTLS greets, and answers STARTTLS with a line that has its tag.
func (l *fakeLeg) answerSTARTTLS(answer string) bool {
	l.greet()
	for {
		tag, verb, _, ok := l.line()
		switch {
		case !ok:
			return false
		case verb == "STARTTLS":
			return l.say(answer, tag)
		case verb == "CAPABILITY":
			l.say("* CAPABILITY %s\r\n%s OK done\r\n", l.capability(), tag)
		default:
			l.say("%s OK done\r\n", tag)
		}
	}
}

// startFakeFront is a node with platforms that are fakes, plain ones and ones with STARTTLS and a
// verified certificate. Each fake has an agency of its name, with the mailbox anna.
func startFakeFront(t testing.TB, logins string, plain, secure []hostile) (f *loginFront, plains, secures []*fakeIMAP) {
	t.Helper()
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	config, err := ca.ServerConfig("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	caFile := filepath.Join(peers.TempDir(t, "ca"), "ca.pem")
	if err := os.WriteFile(caFile, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	// Only who is silent is to meet a limit.
	timeouts := func(c hostile) string {
		each := "20s"
		if c.silent {
			each = "5s"
		}
		return strings.ReplaceAll("timeouts: {dial: EACH, greeting: EACH, command: EACH, login: EACH}", "EACH", each)
	}
	s := loginSetup{imap: true, logins: logins}
	mail := startPlatform(t, platformtest.Options{}).Addr()
	for i, c := range plain {
		p := startFakeIMAP(t, fmt.Sprintf("plain%d", i), nil)
		plains = append(plains, p)
		s.setup.platforms = append(s.setup.platforms, platform{id: p.id, addr: mail, more: fmt.Sprintf("imap: {hosts: [%q], tls: {policy: none}, %s}", p.addr, timeouts(c))})
	}
	for i, c := range secure {
		p := startFakeIMAP(t, fmt.Sprintf("secure%d", i), config)
		secures = append(secures, p)
		s.setup.platforms = append(s.setup.platforms, platform{id: p.id, addr: mail, more: fmt.Sprintf("imap: {hosts: [%q], tls: {policy: verified, ca_file: %q}, %s}", p.addr, caFile, timeouts(c))})
	}
	f = startLoginFront(t, s)
	f.authority = ca
	all := append(append([]*fakeIMAP{}, plains...), secures...)
	for i, p := range all {
		f.addAgencyOn(p.id, p.id, all[(i+1)%len(all)].id, "anna")
	}
	return f, plains, secures
}

// logInAs logs in from an address, and returns the line with the answer, and what is read on from.
func (f *loginFront) logInAs(ctx context.Context, from, user, password, more string) (answer string, conn net.Conn, in *bufio.Reader, err error) {
	conn, err = f.dialLogin(ctx, f.imaps, from)
	if err != nil {
		return "", nil, nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", conn, nil, err
	}
	in = bufio.NewReader(conn)
	quoted := `"` + strings.ReplaceAll(user, `\`, `\\`) + `"`
	if _, err := fmt.Fprintf(conn, "a LOGIN %s %s\r\n%s", quoted, password, more); err != nil {
		return "", conn, in, err
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "a ") {
			return strings.TrimRight(line, "\r\n"), conn, in, err
		}
	}
}

// Whatever a platform says or doesn't say, a client learns that it has to come back, and the
// credentials stay here until the platform is the one.
func TestHostilePlatforms(t *testing.T) {
	t.Parallel()
	strangers, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := strangers.ServerConfig("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	other := new(tls.Config)
	secure := beforeTLS(stranger, other)
	f, plains, secures := startFakeFront(t, "  wait: 100ms\n  failures: {delay: 1ms, max_delay: 1ms}\n", inPlain, secure)
	named, err := f.authority.ServerConfig("other.example")
	if err != nil {
		t.Fatal(err)
	}
	other.Certificates = named.Certificates
	before := rss(t, f.PID())
	t.Run("cases", func(t *testing.T) {
		for i, c := range inPlain {
			t.Run(c.name, func(t *testing.T) { t.Parallel(); c.try(t, f, plains[i]) })
		}
		for i, c := range secure {
			t.Run(c.name, func(t *testing.T) { t.Parallel(); c.try(t, f, secures[i]) })
		}
	})
	if after := rss(t, f.PID()); after > before+64<<20 {
		t.Errorf("the node has %d MiB now, and had %d", after>>20, before>>20)
	}
}

// try has the platform do it, and then be honest again.
func (c *hostile) try(t *testing.T, f *loginFront, platform *fakeIMAP) {
	const from, secret = "127.9.0.1", "canary-7c1e"
	user := "anna@" + platform.id + ".example"
	came := make(chan struct{})
	var once sync.Once
	play := func(l *fakeLeg) {
		once.Do(func() { close(came) })
		c.play(l)
	}
	platform.forget()
	platform.play.Store(&play)
	var answer, heard string
	// asked reports whether a login came so far: a probe alone is none.
	asked := func() bool {
		heard += platform.forget()
		if c.leaks {
			return strings.Contains(heard, secret) || strings.Contains(heard, plainSASL(user, secret))
		}
		select {
		case <-came:
			return true
		case <-time.After(200 * time.Millisecond): // it is left alone since a probe met its other self
			return false
		}
	}
	for end := time.Now().Add(2 * patience); ; time.Sleep(100 * time.Millisecond) {
		began := time.Now()
		said, conn, in, err := f.logInAs(t.Context(), from, user, secret, "b SELECT INBOX\r\n")
		if conn == nil {
			t.Fatal(err)
		}
		if answer = said; strings.HasPrefix(answer, "a NO") {
			// The next command of a login that failed is refused by the node.
			if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "b BAD") && !strings.HasPrefix(line, "b NO") {
				t.Errorf("the next command is answered %q, %v", line, err)
			}
		}
		conn.Close()
		if took := time.Since(began); took > 60*time.Second {
			t.Errorf("answered after %s", took)
		}
		if asked() {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no login came to the platform; it heard %q", heard)
		}
	}
	want := c.want
	if want == "" {
		want = "a NO [UNAVAILABLE]"
	}
	if !strings.HasPrefix(answer, want) {
		t.Errorf("answered %q, want %q", answer, want)
	}
	heard += platform.forget()
	if sent := strings.Contains(heard, secret) || strings.Contains(heard, plainSASL(user, secret)); sent != c.leaks {
		t.Errorf("the platform heard %q", heard)
	}
	if strings.HasPrefix(answer, "a NO") && strings.Contains(heard, "SELECT") {
		t.Errorf("the next command came to the platform: %q", heard)
	}
	platform.play.Store(nil)
	waitFor(t, "a login at "+platform.id+" again", func() bool {
		answer, conn, in, err := f.logInAs(t.Context(), from, user, "pw-"+user, "b FETCH 1 BODY[]\r\n")
		if conn == nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if !strings.HasPrefix(answer, "a OK") {
			return false
		}
		_, _ = in.ReadString('\n')
		line, err := in.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, platform.id+" "+user) {
			t.Errorf("marker %q, %v", line, err)
		}
		return true
	})
}

// rss returns the resident memory of a process.
func rss(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
