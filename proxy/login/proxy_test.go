package login

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/platformtest"
	"mailcutover/node"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/listen"
	"mailcutover/routing"
	"mailcutover/test/peers"
)

func TestOperatorCloses(t *testing.T) {
	w := newWorld(t, nil)
	anna, bert := w.logIn("anna"), w.logIn("bert")
	list, total := w.proxy.Sessions(Filter{}, 1)
	if total != 2 || len(list) != 1 || list[0].Login != `AMT\anna` {
		t.Errorf("%d sessions, the first %+v", total, list)
	}
	for name, f := range map[string]Filter{
		"id":       {ID: list[0].ID},
		"login":    {Login: `amt\anna`},
		"mailbox":  {Mailbox: routing.MailboxID{1}},
		"all":      {Login: `AMT\anna`, Agency: "health", Platform: "exchange", Protocol: "toy", Address: netip.MustParseAddr("127.0.0.1")},
		"nothing":  {Agency: "works"},
		"address":  {Address: netip.MustParseAddr("127.0.0.2")},
		"platform": {Platform: "ox"},
		"protocol": {Protocol: "imap"},
		"another":  {ID: list[0].ID, Login: "bert"},
	} {
		want := 1
		switch name {
		case "nothing", "address", "platform", "protocol", "another":
			want = 0
		}
		if got, _ := w.proxy.Sessions(f, 0); len(got) != want {
			t.Errorf("%s: %d sessions, want %d", name, len(got), want)
		}
	}
	began := time.Now()
	if n := w.proxy.CloseSessions(Filter{Login: `AMT\anna`}, "phone lost"); n != 1 {
		t.Errorf("%d closed", n)
	}
	anna.want("bye operator true")
	if n := w.proxy.CloseSessions(Filter{Login: `AMT\anna`}, "again"); n != 0 { // the client hasn't left yet
		t.Errorf("%d closed that was ending", n)
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("after %s", d)
	}
	_ = anna.nc.Close()
	bert.send("ping")
	bert.want("exchange: ping")
	w.until("it is logged", func() bool { return strings.Contains(w.log.String(), `note="phone lost"`) })
}

func TestALoginUnderWayIsClosedByTheOperator(t *testing.T) {
	w := newWorld(t, nil)
	w.exchange.setStep(func(at, _ string) string {
		if at == "accept" {
			w.proxy.CloseSessions(Filter{}, "")
		}
		return ""
	})
	p := w.dial()
	p.send("LOGIN anna s3cret")
	p.want("no operator")
	if n := len(w.exchange.seen()); n != 0 {
		t.Error("credentials were sent")
	}
}

func TestSessionLimits(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.SessionsPerMailbox, o.SessionsPerAddress = 1, 2 })
	anna := w.logIn("anna")
	p := w.dial()
	p.send("LOGIN a.berg@health.example s3cret")
	p.want("no limit")
	p.send("LOGIN bert s3cret")
	p.want("yes")
	q := w.dial()
	q.send("LOGIN info@health.example s3cret")
	q.want("no limit")
	_ = anna.nc.Close()
	w.until("a place is free", func() bool { _, n := w.proxy.Sessions(Filter{}, 0); return n == 1 })
	q.send("LOGIN info@health.example s3cret")
	q.want("yes")
}

func TestFailuresAreHeldBack(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) {
		o.Failures = Failures{Delay: 100 * time.Millisecond, MaxDelay: 100 * time.Millisecond, PerName: 2, Window: time.Hour}
	})
	p, q := w.dial(), w.dial()
	began := time.Now()
	p.send("LOGIN anna wrong")
	w.until("the platform has said no", func() bool { return w.observed.get(func(o *observer) int { return o.causes["wrong"] }) == 1 })
	q.send("LOGIN bert s3cret") // isn't held back by anna
	q.want("yes")
	p.want("no wrong")
	if d := time.Since(began); d < 100*time.Millisecond {
		t.Errorf("after %s already", d)
	}
	p.send("LOGIN a.berg@health.example wrong") // the same mailbox
	p.want("no wrong")
	p.send("LOGIN anna s3cret")
	p.want("no limit")
	if n := len(w.exchange.seen()); n != 3 {
		t.Errorf("%d logins at the platform, want 3", n)
	}
}

// A success forgets the failures of the name before it.
func TestSuccessForgetsFailures(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.Failures = Failures{PerName: 2, Window: time.Hour} })
	p, q := w.dial(), w.dial()
	p.send("LOGIN anna wrong")
	p.want("no wrong")
	p.send("LOGIN anna s3cret")
	p.want("yes")
	for _, want := range []string{"no wrong", "no wrong", "no limit"} {
		q.send("LOGIN anna wrong")
		q.want(want)
	}
}

// Logins that a platform takes at once are not more than the mailbox may have, either.
func TestMailboxLimitOfLoginsAtOnce(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.SessionsPerMailbox = 1 })
	var both sync.WaitGroup
	both.Add(2)
	w.exchange.setStep(func(at, _ string) string {
		if at == "login" {
			both.Done()
			both.Wait()
		}
		return ""
	})
	p, q := w.dial(), w.dial()
	p.send("LOGIN anna s3cret")
	q.send("LOGIN anna s3cret")
	got := []string{p.line(), q.line()}
	if slices.Sort(got); !slices.Equal(got, []string{"no limit", "yes"}) {
		t.Errorf("the two got %q", got)
	}
}

// Who guesses the password of a user doesn't begin anew with each mailbox that he names behind it.
func TestFailuresOfADelegateCountForTheUser(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, e []Endpoint) {
		o.Failures = Failures{PerName: 2, Window: time.Hour}
		e[0].Delegate = `\`
	})
	p := w.dial()
	p.send("LOGIN anna/info@health.example wrong")
	p.want("no wrong")
	p.send("LOGIN anna wrong bert@health.example")
	p.want("no wrong")
	p.send("LOGIN anna s3cret")
	p.want("no limit")
	p.send("LOGIN info@health.example s3cret") // it isn't the mailbox's failure
	p.want("yes")
	if !strings.Contains(w.log.String(), `login=AMT\anna\AMT\info `) {
		t.Errorf("not in the log as the platform was told:\n%s", w.log)
	}
}

// Guesses that are under way take no place from the user.
func TestGuessesDoNotFillAMailbox(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.SessionsPerMailbox = 1 })
	asked, answer := make(chan struct{}), make(chan struct{})
	w.exchange.setStep(func(at, line string) string {
		if at == "login" && strings.Contains(line, "wrong") {
			close(asked)
			<-answer
		}
		return ""
	})
	p := w.dial()
	p.send("LOGIN anna wrong")
	<-asked
	anna := w.logIn("anna")
	close(answer)
	p.want("no wrong")
	p.send("LOGIN anna s3cret")
	p.want("no limit")
	_ = anna.nc.Close()
	w.until("the place is free", func() bool { return w.proxy.Counts() == Counts{} }) // not Joined alone: who ends has it still
	p.send("LOGIN anna s3cret")
	p.want("yes")
}

func TestTrustedNetsAreNotCounted(t *testing.T) {
	w := newWorld(t, func(o *Options, l *Listener, _ []Endpoint) {
		o.Failures = Failures{Delay: time.Hour, PerName: 1, PerNet: 1}
		l.TrustedNets = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	p := w.dial()
	for range 3 {
		p.send("LOGIN anna wrong")
		p.want("no wrong")
		p.send("LOGIN nobody wrong")
		p.want("no no-such-name")
	}
}

// What is said of a name that isn't known goes to no platform, and the name into no log.
func TestUnknownNames(t *testing.T) {
	w := newWorld(t, nil)
	p := w.dial()
	for name, want := range map[string]string{
		"s3cretAsName": "no no-such-name", "anna*master": "no name", "anna%x": "no name", "*)(uid=*": "no name", `HEALTH\anna`: "no no-such-name",
	} {
		p.send("LOGIN " + name + " x")
		p.want(want)
	}
	if n := len(w.exchange.seen()) + len(w.ox.seen()); n != 0 {
		t.Errorf("%d platforms were asked", n)
	}
	if strings.Contains(w.log.String(), "s3cretAsName") || !strings.Contains(w.log.String(), "login=unknown-") {
		t.Errorf("log:\n%s", w.log)
	}
}

func TestDelegates(t *testing.T) {
	w := newWorld(t, func(_ *Options, _ *Listener, e []Endpoint) { e[0].Delegate = `\` })
	p := w.logIn("anna/info@health.example")
	p.send("ping")
	p.want("exchange: ping")
	if got := w.exchange.seen(); got[0] != `AMT\anna\AMT\info s3cret` {
		t.Errorf("the platform was told %q", got)
	}
	if l, _ := w.proxy.Sessions(Filter{Mailbox: routing.MailboxID{2}}, 0); len(l) != 1 {
		t.Errorf("sessions of the mailbox: %+v", l)
	}
	q := w.dial()
	q.send("LOGIN anna s3cret info@health.example")
	q.want("yes")
	w.begin()
	w.publish()
	r := w.dial()
	r.send("LOGIN anna/info@health.example s3cret") // ox has no such form
	r.want("no name")
	if n := len(w.ox.seen()); n != 0 {
		t.Error("ox was asked")
	}
}

func TestShutdown(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.Spread = 50 * time.Millisecond })
	session, idle, waits := w.logIn("anna"), w.dial(), w.dial()
	w.begin()
	session.want("bye moved true")
	_ = session.nc.Close()
	waits.send("LOGIN anna s3cret")
	w.until("it waits", func() bool { return w.proxy.Counts().Waiting == 1 })
	done := make(chan error, 1)
	go func() { done <- w.server.Shutdown(t.Context()) }()
	idle.want("bye drain false")
	waits.want("no drain")
	waits.want("bye drain false")
	_, _ = idle.nc.Close(), waits.nc.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShutdownEndsSessions(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.Spread = 100 * time.Millisecond })
	var peers []*peer
	for range 10 {
		peers = append(peers, w.logIn("anna"))
	}
	done := make(chan error, 1)
	go func() { done <- w.server.Shutdown(t.Context()) }()
	for _, p := range peers {
		p.want("bye drain true")
		_ = p.nc.Close()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestShutdownCuts(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.Spread = time.Hour })
	p := w.logIn("anna")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.server.Shutdown(ctx) }()
	p.want("bye drain true")
	_ = p.nc.Close()
	if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestMaintenance(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.Spread = 50 * time.Millisecond })
	p := w.logIn("anna")
	w.rights.set(func(r *rights) { r.rest = true })
	w.begin()                                                                // news
	if got := p.line(); got != "bye moved true" && got != "bye drain true" { // the maintenance may be seen before the news
		t.Errorf("got %q", got)
	}
	_ = p.nc.Close()
	w.rights.set(func(r *rights) { r.rest = false })
	w.abort()
	p = w.logIn("anna")
	w.rights.set(func(r *rights) { r.rest = true })
	// Another agency's news: the session is ended for the maintenance.
	old := w.source.State()
	rec, err := routing.NewAgency("works", "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	now, err := old.Apply(routing.Update{Agencies: []routing.Agency{rec}})
	if err != nil {
		t.Fatal(err)
	}
	w.gate.Update(old, now)
	p.want("bye drain true")
	_ = p.nc.Close()
	w.until("nothing is under way", func() bool { return w.gate.Load("health") == node.Load{} })
}

// Maintenance ended and began again before anybody looked: a session that began meanwhile is ended too.
func TestMaintenanceThatWasNotSeenToPause(t *testing.T) {
	w := newWorld(t, nil)
	p := w.logIn("anna")
	w.proxy.warden.round(true)
	p.want("bye drain true")
	_ = p.nc.Close()
}

// A node in maintenance greets nobody: its clients have other nodes.
func TestMaintenanceAtTheGreeting(t *testing.T) {
	w := newWorld(t, nil)
	greeted := w.dial()
	w.rights.set(func(r *rights) { r.rest = true })
	greeted.send("LOGIN anna s3cret")
	greeted.want("no drain")
	if n := len(w.exchange.seen()); n != 0 {
		t.Error("the platform saw credentials")
	}
	p := w.connect()
	p.want("bye drain false")
	if rest := p.ends(); rest != "" {
		t.Errorf("then %q", rest)
	}
	w.until("it is logged", func() bool { return strings.Contains(w.log.String(), "reason=drain") })
}

func TestAnotherHostIsTried(t *testing.T) {
	bad := newPlatform(t, "bad")
	bad.setStep(func(at, _ string) string { return strings.Repeat("x", 200) })
	w := newWorld(t, func(_ *Options, _ *Listener, e []Endpoint) {
		e[0].Way.Hosts = []string{bad.ln.Addr().String(), nobody(t), e[0].Way.Hosts[0]}
	})
	p := w.logIn("anna")
	p.send("ping")
	p.want("exchange: ping")
	if s := w.proxy.HostStats()["exchange"]["toy"]; len(s) != 3 || s[0].Healthy || s[1].Healthy || !s[2].Healthy {
		t.Errorf("hosts: %+v", s)
	}
}

// nobody returns an address at which nobody listens until the test ends.
func nobody(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", peers.Port(t))
}

// Once credentials may have been taken, they are not told to another host.
func TestCredentialsAreSentOnce(t *testing.T) {
	second := newPlatform(t, "second")
	w := newWorld(t, func(_ *Options, _ *Listener, e []Endpoint) {
		e[0].Way.Hosts = append(e[0].Way.Hosts, second.ln.Addr().String())
	})
	w.exchange.setStep(func(at, _ string) string {
		if at == "login" {
			return "s3cret? what?"
		}
		return ""
	})
	p := w.dial()
	p.send("LOGIN anna s3cret")
	p.want("no platform")
	if n := len(second.seen()); n != 0 {
		t.Error("a second host has them")
	}
	if !strings.Contains(w.log.String(), "[secret]? what?") {
		t.Errorf("log:\n%s", w.log)
	}
}

func TestPlatformDown(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, e []Endpoint) {
		o.Wait = 10 * time.Millisecond
		e[0].Way.Hosts = []string{nobody(t)}
	})
	p := w.dial()
	for range 2 {
		p.send("LOGIN anna s3cret")
		p.want("no platform")
	}
}

func TestEndpointsAreReplaced(t *testing.T) {
	w := newWorld(t, nil)
	p := w.logIn("anna")
	way := func(p *platform) dial.Endpoint {
		return dial.Endpoint{Hosts: []string{p.ln.Addr().String()}, TLS: dial.TLS{Policy: dial.TLSNone}}
	}
	before := w.proxy.endpoint("ox", "toy")
	if err := w.proxy.SetEndpoints([]Endpoint{
		{Platform: "exchange", Protocol: "toy", Way: way(w.ox)}, {Platform: "ox", Protocol: "toy", Way: way(w.ox)},
	}); err != nil {
		t.Fatal(err)
	}
	if w.proxy.endpoint("ox", "toy") != before {
		t.Error("one that didn't change forgot what is known of its hosts")
	}
	p.send("ping")
	p.want("exchange: ping")
	q := w.logIn("anna")
	q.send("ping")
	q.want("ox: ping")
	for what, bad := range map[string][]Endpoint{
		"twice":    {{Platform: "a", Protocol: "toy", Way: way(w.ox)}, {Platform: "a", Protocol: "toy", Way: way(w.ox)}},
		"no hosts": {{Platform: "a", Protocol: "toy"}},
		"master":   {{Platform: "a", Protocol: "toy", Way: way(w.ox), Master: &Master{User: "m"}}},
	} {
		if err := w.proxy.SetEndpoints(bad); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if err := w.proxy.SetEndpoints(nil); err != nil {
		t.Fatal(err)
	}
	r := w.dial()
	r.send("LOGIN anna s3cret")
	r.want("no platform")
}

func TestUnauthenticate(t *testing.T) {
	w := newWorld(t, nil)
	ep := w.proxy.endpoint("exchange", "toy")
	tr := &try{p: w.proxy}
	tr.alarm(ep, fmt.Errorf("at: %w", ErrUnauthenticate))
	if got := w.alarms.keys(); got != "login-unauthenticate:exchange:toy" {
		t.Errorf("alarms: %q", got)
	}
	w.logIn("anna")
	if got := w.alarms.keys(); got != "" {
		t.Errorf("after a login: %q", got)
	}
}

// TestTLS is about both sides, and about a platform that can't be trusted.
func TestTLS(t *testing.T) {
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.ServerConfig()
	if err != nil {
		t.Fatal(err)
	}
	platformTLS := newPlatform(t, "secure")
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// TLS before the platform, by hand.
	platformTLS.done.Go(func() {
		for {
			nc, err := front.Accept()
			if err != nil {
				return
			}
			platformTLS.done.Go(func() {
				defer nc.Close()
				c := tls.Server(nc, server)
				_ = nc.SetDeadline(time.Now().Add(patience))
				if c.Handshake() == nil {
					platformTLS.serve(c)
				}
			})
		}
	})
	t.Cleanup(func() { _ = front.Close() })
	w := newWorld(t, func(o *Options, l *Listener, e []Endpoint) {
		l.TLS, l.Implicit, l.RequireTLS = func() *tls.Config { return server }, true, true
		e[0].Way.Hosts = []string{front.Addr().String()}
		e[0].Way.TLS = dial.TLS{Policy: dial.TLSVerified, Implicit: true, ServerName: "localhost", CA: ca.Pool()}
		e[1].Way.Hosts = []string{front.Addr().String()}
		e[1].Way.TLS = dial.TLS{Policy: dial.TLSVerified, Implicit: true, ServerName: "other.example", CA: ca.Pool()}
	})
	nc, err := tls.Dial("tcp", w.addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	p := &peer{t: t, nc: nc, r: bufio.NewReader(nc)}
	_ = nc.SetDeadline(time.Now().Add(patience))
	p.want("hello")
	p.send("LOGIN anna s3cret")
	p.want("yes")
	p.send("ping")
	p.want("secure: ping")
	if !strings.Contains(w.log.String(), `tls="TLS1.3 TLS_`) {
		t.Errorf("log:\n%s", w.log)
	}
	w.begin()
	p.want("bye moved true")
	if _, err := p.r.ReadByte(); err != io.EOF {
		t.Errorf("want the end in order, got %v", err)
	}
	_ = nc.Close()
	w.publish()
	nc, err = tls.Dial("tcp", w.addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	p = &peer{t: t, nc: nc, r: bufio.NewReader(nc)}
	p.want("hello")
	p.send("LOGIN anna s3cret")
	p.want("no platform")
	if got := platformTLS.seen(); len(got) != 1 {
		t.Errorf("credentials went to a platform with another's certificate: %q", got)
	}
	if got := w.alarms.keys(); got != "login-tls:ox:toy" {
		t.Errorf("alarms: %q", got)
	}
}

func TestPrivacy(t *testing.T) {
	w := newWorld(t, func(_ *Options, l *Listener, _ []Endpoint) { l.RequireTLS = true })
	p := w.dial()
	p.send("LOGIN anna s3cret")
	p.want("no privacy")
	if n := len(w.exchange.seen()); n != 0 {
		t.Error("credentials went on")
	}
}

// A PROXY header of a peer that may send none ends the connection without a word more.
func TestStrangeProxyHeaders(t *testing.T) {
	w := newWorld(t, nil)
	for _, header := range []string{
		"PROXY TCP4 192.0.2.1 127.0.0.1 1 143\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x8f",
	} {
		p := w.dial()
		if _, err := io.WriteString(p.nc, header+"LOGIN anna s3cret\r\n"); err != nil {
			t.Fatal(err)
		}
		if rest := p.ends(); rest != "" {
			t.Errorf("%q: got %q", header, rest)
		}
	}
}

func TestClientsThatNeverLogIn(t *testing.T) {
	w := newWorld(t, func(_ *Options, l *Listener, _ []Endpoint) { l.Login = 50 * time.Millisecond })
	p := w.dial()
	p.want("bye idle false")
	if rest := p.ends(); rest != "" {
		t.Errorf("and then %q", rest)
	}
}

func TestConnectionLimit(t *testing.T) {
	for name, limit := range map[string]func(*Options, *Listener){
		"of the listener":            func(_ *Options, l *Listener) { l.Connections = 1 },
		"of all listeners, together": func(o *Options, _ *Listener) { o.Quota = listen.NewQuota(3) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(o *Options, l *Listener, _ []Endpoint) { limit(o, l) })
			p := w.logIn("anna") // counts while it is joined
			if rest := w.connect().ends(); rest != "bye limit false\r\n" {
				t.Errorf("got %q", rest)
			}
			_ = p.nc.Close()
			w.until("the place is free", func() bool { return w.server.Connections() == 0 })
			w.dial()
		})
	}
}

// A dialogue that panics leaves nothing behind; its session neither.
func TestPanic(t *testing.T) {
	w := newWorld(t, nil)
	w.dialogue.told = func() { panic("on purpose") }
	p := w.dial()
	p.send("LOGIN anna s3cret")
	if got := p.ends(); got != "" {
		t.Errorf("got %q", got)
	}
	w.until("nothing is left", func() bool { return w.proxy.Counts() == Counts{} && w.gate.Load("health") == node.Load{} })
	w.until("the platform's end", func() bool { return w.exchange.opened.Load() == 0 })
}

func TestBadOptions(t *testing.T) {
	w := newWorld(t, nil)
	if _, err := New(Options{Wait: -1, Domains: []Domain{{}}}); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("got %v, want four mistakes", err)
	}
	for name, l := range map[string]Listener{
		"no dialogue": {ID: "a"}, "no id": {Dialogue: w.dialogue}, "implicit": {ID: "a", Dialogue: w.dialogue, Implicit: true},
	} {
		if _, err := w.proxy.NewServer(l); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Maintenance that begins between a login's decision and its join ends the session, too.
func TestMaintenanceDuringALogin(t *testing.T) {
	w := newWorld(t, nil)
	w.dialogue.told = func() { w.rights.set(func(r *rights) { r.rest = true }) }
	p := w.dial()
	p.send("LOGIN anna s3cret")
	p.want("yes")
	p.want("bye drain true")
	_ = p.nc.Close()
}

// A platform that says nothing keeps nobody who has to end.
func TestShutdownDuringALogin(t *testing.T) {
	w := newWorld(t, nil)
	silent := make(chan struct{})
	t.Cleanup(func() { close(silent) })
	w.exchange.setStep(func(at, _ string) string {
		if at == "login" {
			<-silent
		}
		return ""
	})
	p := w.dial()
	p.send("LOGIN anna s3cret")
	w.until("the platform has the credentials", func() bool { return len(w.exchange.seen()) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	if err := w.server.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(began); d > cutPatience {
		t.Errorf("after %s", d)
	}
	if l := w.gate.Load("health"); l.Open+l.Dotted != 0 {
		t.Errorf("left: %+v", l)
	}
}

// cutPatience is far below the time that a platform may take.
const cutPatience = 20 * time.Second

// TestAddresses is about who the client is: behind a load balancer, and towards the platform.
func TestAddresses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	w := newWorld(t, func(o *Options, l *Listener, e []Endpoint) {
		l.ProxyNets = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		e[0].Way.Hosts, e[0].Identity = []string{ln.Addr().String()}, IdentityProxyV2
	})
	nc, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(nc, "PROXY TCP4 192.0.2.1 192.0.2.9 4711 143\r\nLOGIN anna s3cret\r\n"); err != nil {
		t.Fatal(err)
	}
	platform, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer platform.Close()
	_ = platform.SetDeadline(time.Now().Add(patience))
	header := make([]byte, 28)
	if _, err := io.ReadFull(platform, header); err != nil {
		t.Fatal(err)
	}
	if want := dial.AppendProxyV2(nil, netip.MustParseAddrPort("192.0.2.1:4711"), netip.MustParseAddrPort("192.0.2.9:143")); string(header) != string(want) {
		t.Errorf("the platform got the header %x, want %x", header, want)
	}
	if l, _ := w.proxy.Sessions(Filter{Address: netip.MustParseAddr("192.0.2.1")}, 0); len(l) != 1 || l[0].Client.Port() != 4711 {
		t.Errorf("sessions: %+v", l)
	}
}

// A client that leaves while its login waits gives its place to another one, also if more than the
// login is unread.
func TestAWaitingClientLeaves(t *testing.T) {
	w := newWorld(t, func(o *Options, _ *Listener, _ []Endpoint) { o.Waiters = 1 })
	w.begin()
	for _, more := range []string{"", "more\r\n"} {
		p := w.dial()
		p.send("LOGIN anna s3cret")
		_, _ = io.WriteString(p.nc, more)
		w.until("it waits", func() bool { return w.proxy.Counts().Waiting == 1 })
		_ = p.nc.Close()
		w.until("its place is free", func() bool { return w.proxy.Counts().Waiting == 0 })
	}
	w.until("it is logged", func() bool { return strings.Contains(w.log.String(), "the client has left") })
	p := w.dial()
	p.send("LOGIN anna s3cret")
	_, _ = io.WriteString(p.nc, "one\r\n")
	w.until("it waits", func() bool { return w.proxy.Counts().Waiting == 1 })
	w.abort()
	p.want("yes")
	p.want("exchange: one")
	p.send("two")
	p.want("exchange: two")
}

func TestIdleSessionsAreTold(t *testing.T) {
	w := newWorld(t, func(_ *Options, l *Listener, _ []Endpoint) { l.Idle = 30 * time.Millisecond })
	p := w.dial()
	p.send("LOGIN anna s3cret")
	p.want("yes")
	p.want("bye idle true")
	if rest := p.ends(); rest != "" {
		t.Errorf("then %q", rest)
	}
	w.until("it is logged", func() bool { return strings.Contains(w.log.String(), "reason=limit") })
}

// What a client sends that is sent away doesn't take the last words from it by a reset.
func TestLastWordsArrive(t *testing.T) {
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.ServerConfig()
	if err != nil {
		t.Fatal(err)
	}
	for _, secure := range []bool{false, true} {
		w := newWorld(t, func(_ *Options, l *Listener, _ []Endpoint) {
			l.LineBytes = 100
			if secure {
				l.Implicit, l.TLS = true, func() *tls.Config { return server }
			}
		})
		p := w.connect()
		if secure {
			nc := tls.Client(p.nc, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
			p.nc, p.r = nc, bufio.NewReader(nc)
		}
		p.want("hello")
		p.send(strings.Repeat("x", 64<<10))
		p.want("bye long")
		if n, err := p.r.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("TLS %v: then %d bytes, %v", secure, n, err)
		}
	}
}
