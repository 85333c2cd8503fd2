package daemon

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/config"
	"mailcutover/internal/platformtest"
	"mailcutover/mail"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/relay"
)

// until waits for a condition, or fails.
func (b *bench) until(what string, met func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); !met(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func (b *bench) readiness() (r admin.Readiness, status int) {
	b.t.Helper()
	res, err := http.Get("http://" + b.AdminAddr().String() + "/readyz")
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&r); err != nil {
		b.t.Fatal(err)
	}
	return r, res.StatusCode
}

// restart makes a platform come back at its old address.
func restart(t *testing.T, p *platformtest.Platform) {
	t.Helper()
	again, err := platformtest.Start(platformtest.Options{Listen: p.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Close)
}

// Nobody sends mail, and the node still knows when its platforms come and go.
func TestIdleNodeKnowsItsPlatforms(t *testing.T) {
	b := newBench(t)
	for _, w := range b.platforms.Load().ways { // as after the pause, which is too long for a test
		w.watch.ask()
	}
	if _, status := b.readiness(); status != http.StatusOK {
		t.Fatalf("both are up: %d", status)
	}
	b.a.Close()
	b.b.Close()
	for _, w := range b.platforms.Load().ways {
		w.watch.ask()
	}
	b.until("503 with both platforms away", func() bool { _, status := b.readiness(); return status == http.StatusServiceUnavailable })
	restart(t, b.a)
	b.until("200 with one of them back", func() bool {
		r, status := b.readiness()
		return status == http.StatusOK && r.Degraded && r.Platforms["exchange"] && !r.Platforms["ox"]
	})
	restart(t, b.b)
	b.until("all well", func() bool { r, _ := b.readiness(); return r.Ready && !r.Degraded })
}

// Platforms that are down when the node starts are found when they come.
func TestPlatformsThatComeLater(t *testing.T) {
	b := newBench(t)
	b.stop(b.Daemon)
	b.a.Close()
	b.b.Close()
	b.start()
	if r, status := b.readiness(); status != http.StatusServiceUnavailable || r.Ready {
		t.Fatalf("both are away: %d, %+v", status, r)
	}
	restart(t, b.a)
	restart(t, b.b)
	b.until("all well", func() bool { r, _ := b.readiness(); return r.Ready && !r.Degraded })
}

// A probe is not sent while messages use the endpoint, and not when it isn't due.
func TestWhenProbesAreDue(t *testing.T) {
	platform, err := platformtest.Start(platformtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer platform.Close()
	settings := relay.Endpoint{
		Platform: "exchange", Origin: mail.OriginOutside, Protocol: relay.ProtocolSMTP, Hosts: []string{platform.Addr()}, Helo: "mx1.example",
		TLS: dial.TLS{Policy: dial.TLSNone}, Limits: relay.Limits{Connections: 2},
	}
	pool, err := relay.NewPool(settings, relay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	w := &way{settings: settings, pool: pool, watch: newWatch()}
	now := time.Now()
	if w.due(now, now.Add(time.Second)) || !w.due(now, now) || !w.hasRoom() {
		t.Error("an endpoint that is well and idle is due at its time, and has room")
	}
	tx, err := pool.Open(t.Context(), mail.Client{}, mail.Path{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if w.hasRoom() {
		t.Error("half of the connections are in use, and a probe would take another")
	}
	tx.Abort()
	platform.Close()
	if w.probe(t.Context()); w.ready() == nil {
		t.Fatal("the platform is gone")
	}
	retry := pool.Stats().Hosts[0].RetryAt
	if w.due(retry.Add(-time.Millisecond), now.Add(time.Hour)) || !w.due(retry, now.Add(time.Hour)) {
		t.Error("an endpoint that fails is due when its host may be dialled again")
	}
	// One that takes the connection and says nothing is not ready either.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	settings.Hosts = []string{silent.Addr().String()}
	mute, err := relay.NewPool(settings, relay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	w = &way{settings: settings, pool: mute, watch: newWatch()}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if again := w.probe(ctx); again != probeAgain || w.ready() == nil {
		t.Errorf("a silent platform: again in %s, %v", again, w.ready())
	}
}

// dialogue is a client's connection to the node. A line is sent and its answer checked;
// without a line there is only an answer, without a code it isn't waited for.
func (b *bench) dialogue() func(line string, code int) {
	b.t.Helper()
	c, err := textproto.Dial("tcp", b.Addr("mx").String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = c.Close() })
	return func(line string, code int) {
		b.t.Helper()
		if line != "" {
			if err := c.PrintfLine("%s", line); err != nil {
				b.t.Fatal(err)
			}
		}
		if code == 0 {
			return
		}
		if got, text, err := c.ReadResponse(code); err != nil {
			b.t.Fatalf("%s: %d %s, %v", line, got, text, err)
		}
	}
}

// underWay hands the node a message for rcpt, of agency health, and returns when its platform has
// been sent the dot: what is put off comes again, as from any sender (before the dot of an armed
// agency the table has 250 ms to answer). answered waits for the answer and checks its code.
func (b *bench) underWay(rcpt string) (answered func(code int)) {
	b.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		c, err := textproto.Dial("tcp", b.Addr("mx").String())
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { _ = c.Close() })
		type answer struct {
			code int
			text string
			err  error
		}
		put := make(chan answer, 1)
		go func() { // ends with the connection
			var a answer
			for _, say := range []string{"", "EHLO client.example", "MAIL FROM:<s@elsewhere.example>", "RCPT TO:<" + rcpt + ">", "DATA", "Subject: test\r\n\r\nbody\r\n."} {
				if say != "" {
					a.err = c.PrintfLine("%s", say)
				}
				if a.err == nil {
					a.code, a.text, a.err = c.ReadResponse(0)
				}
				if a.err != nil || a.code >= 400 {
					break
				}
			}
			put <- a
		}()
		for again := false; !again; {
			if b.gate.Load("health").Dotted == 1 {
				return func(code int) {
					b.t.Helper()
					if a := <-put; a.err != nil || a.code != code {
						b.t.Fatalf("answered %d %s, %v: want %d", a.code, a.text, a.err, code)
					}
				}
			}
			select {
			case a := <-put:
				if again = a.err == nil && a.code/100 == 4; !again {
					b.t.Fatalf("before the dot was under way: %d %s, %v", a.code, a.text, a.err)
				}
				_ = c.Close()
			case <-time.After(5 * time.Millisecond):
			}
			if time.Now().After(end) {
				break
			}
		}
	}
	b.t.Fatalf("no dot under way within %s", patience)
	return nil
}

// A reload keeps the pools whose settings are the same; a transaction that began before
// goes on with its old one, whether it has a connection yet or not.
func TestReloadDoesntBreakMailUnderWay(t *testing.T) {
	for name, c := range map[string]struct {
		change func(b *bench)
		kept   bool
	}{
		"nothing changed": {func(*bench) {}, true},
		"another setting": {func(b *bench) { b.write(b.a.Addr(), "log: {level: debug}") }, true},
		"another host":    {func(b *bench) { b.write(b.b.Addr(), "") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			old := b.platforms.Load().ways[0]
			begun, addressed := b.dialogue(), b.dialogue()
			for _, say := range []func(string, int){begun, addressed} {
				say("", 220)
				say("EHLO client.example", 250)
				say("MAIL FROM:<s@elsewhere.example>", 250)
			}
			addressed("RCPT TO:<anna@health.example>", 250)
			c.change(b)
			if _, err := b.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			if now := b.platforms.Load(); (now.ways[0] == old) != c.kept || now.ways[1].settings.Platform != "ox" {
				t.Errorf("pool kept: %t, want %t", now.ways[0] == old, c.kept)
			}
			begun("RCPT TO:<anna@health.example>", 250)
			for _, say := range []func(string, int){begun, addressed} {
				say("DATA", 354)
				say("Subject: test\r\n\r\nbody\r\n.", 250)
				say("QUIT", 221)
			}
			if got := len(b.a.Stored()); got != 2 {
				t.Errorf("%d messages stored, want 2", got)
			}
			if !c.kept { // the node gives the old pool up beside the reload
				within(t, "the old pool keeps connections", func() bool { return old.pool.Stats().Open == 0 })
			}
		})
	}
}

// A way that isn't in force any more is closed when nothing can need it.
func TestRetiredWayIsClosed(t *testing.T) {
	b := newBench(t)
	old := b.platforms.Load().ways[0]
	done := make(chan struct{})
	go func() { defer close(done); old.retire(t.Context(), 0) }()
	<-done
	if _, err := old.pool.Open(t.Context(), mail.Client{}, mail.Path{}, nil); err == nil || !strings.Contains(err.Error(), relay.ErrClosed.Error()) {
		t.Errorf("open: %v", err)
	}
}

// What makes an endpoint another one.
func TestSameEndpoint(t *testing.T) {
	load := func(more string) relay.Endpoint {
		t.Helper()
		cfg, err := config.Load(settingsFile(t, more), nil)
		if err != nil {
			t.Fatal(err)
		}
		ep, err := endpoint(cfg, &cfg.Platforms[0], mail.OriginOutside)
		if err != nil {
			t.Fatal(err)
		}
		return ep
	}
	with := func(password string) string {
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		return ", auth: {mechanism: plain, username: relay, password_file: " + path + "}"
	}
	base := load(with("one"))
	for more, same := range map[string]bool{
		with("one"): true, with("two"): false, "": false,
		with("one") + ", helo: other.example": false, with("one") + ", limits: {connections: 7}": false,
	} {
		if got := sameEndpoint(base, load(more)); got != same {
			t.Errorf("%q is the same: %t, want %t", more, got, same)
		}
	}
}

// settingsFile writes a configuration whose first endpoint has more settings.
func settingsFile(t *testing.T, more string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mailcutover.yaml")
	text := `node: mx1.example
data: ` + t.TempDir() + `
approval: none
lab: true
listeners:
  - {id: mx, address: "127.0.0.1:0"}
platforms:
  - {id: exchange, outside: {hosts: ["127.0.0.1:1"]` + more + `}}
  - {id: ox, outside: {hosts: ["127.0.0.1:2"]}}
admin: {address: "127.0.0.1:0", tokens: [{name: test, person: tester, sha256: "` + strings.Repeat("ab", 32) + `"}]}
routing: {postmaster: anna@health.example}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// within fails the test unless done comes true in time.
func within(t *testing.T, otherwise string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); {
		if time.Now().After(end) {
			t.Fatal(otherwise)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
