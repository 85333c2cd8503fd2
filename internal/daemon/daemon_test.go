package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailcutover/admin"
	"mailcutover/internal/config"
	"mailcutover/internal/platformtest"
	"mailcutover/mailboxlist"
	"mailcutover/test/peers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "a token for tests"

// bench is a node of its own, with two platforms and a file of settings.
type bench struct {
	*Daemon
	t    *testing.T
	path string
	a, b *platformtest.Platform
	api  *admin.Client
	log  *lines

	onA, onB, onAdmin string // more settings of the platforms, and of the API
}

// lines is a log that a test may read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// write writes the settings with the source platform at host.
func (b *bench) write(host, more string) {
	b.t.Helper()
	hash := config.HashToken(token)
	text := fmt.Sprintf(`node: mx1.example
data: %s
approval: none
lab: true
listeners:
  - {id: mx, address: "127.0.0.1:0"}
platforms:
  - {id: exchange, outside: {hosts: ["%s"]}%s}
  - {id: ox, outside: {hosts: ["%s"]}%s}
routing: {postmaster: anna@health.example}
admin: {address: "127.0.0.1:0"%s, tokens: [{name: test, person: tester, sha256: "%x"}]}
%s
`, filepath.Join(filepath.Dir(b.path), "data"), host, b.onA, b.b.Addr(), b.onB, b.onAdmin, hash[:], more)
	if err := os.WriteFile(b.path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func newBench(t *testing.T) *bench { return newBenchWith(t, "") }

// newBenchWith has more settings.
func newBenchWith(t *testing.T, more string) *bench {
	t.Helper()
	return (&bench{t: t, path: filepath.Join(t.TempDir(), "mailcutover.yaml"), log: new(lines)}).begin(more)
}

// begin starts the node with more settings, and gives it an agency with one mailbox.
func (b *bench) begin(more string) *bench {
	t := b.t
	t.Helper()
	b.startPlatforms()
	b.write(b.a.Addr(), more)
	b.start()
	b.until("a lease", func() bool { return b.gate.Ready() == nil })
	if _, err := b.api.AddAgency(t.Context(), admin.NewAgency{ID: "health", Source: "exchange", Target: "ox", Domains: []string{"health.example"}, Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	row := map[string]string{"address": "anna@health.example", "directory_id": "6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2", "agency": "health", "kind": "user"}
	var head, cells []string
	for _, c := range mailboxlist.Columns() {
		head, cells = append(head, c), append(cells, row[c])
	}
	list := strings.Join(head, ",") + "\n" + strings.Join(cells, ",") + "\n"
	if _, err := b.api.Import(t.Context(), strings.NewReader(list), "test", false); err != nil {
		t.Fatal(err)
	}
	return b
}

// startPlatforms starts both, on ports that stay theirs while they are closed.
func (b *bench) startPlatforms() {
	b.t.Helper()
	for _, p := range []**platformtest.Platform{&b.a, &b.b} {
		var err error
		if *p, err = platformtest.Start(platformtest.Options{Listen: fmt.Sprintf("127.0.0.1:%d", peers.Port(b.t))}); err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup((*p).Close)
	}
}

// patience is how long a test waits for what has to happen, and for a stop.
const patience = time.Minute

// start starts the node, and stops it at the test's end.
func (b *bench) start() {
	b.t.Helper()
	cfg, err := config.Load(b.path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		b.Daemon, err = Start(b.t.Context(), cfg, Options{Logger: slog.New(slog.NewJSONHandler(b.log, nil)), Version: admin.Version{Version: "test"}})
		// A process that another test was starting when the node before stopped has the locks of
		// that one until it is its own program.
		if err == nil || !strings.Contains(err.Error(), "in use") || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		b.t.Fatal(err)
	}
	d := b.Daemon
	b.t.Cleanup(func() { b.stop(d) })
	b.api, err = admin.NewClient("http://"+d.AdminAddr().String(), token, nil)
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) stop(d *Daemon) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := d.Shutdown(ctx); err != nil {
		b.t.Errorf("shutdown: %v", err)
	}
}

// send sends one message and checks that this platform stored it. Like any sender it comes
// again with what is put off: before the dot of an armed agency the table has 250 ms to answer.
func (b *bench) send(to *platformtest.Platform) {
	b.t.Helper()
	n := len(to.Stored())
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := smtp.SendMail(b.Addr("mx").String(), nil, "s@elsewhere.example", []string{"anna@health.example"}, []byte("Subject: test\r\n\r\nbody\r\n"))
		if err == nil {
			break
		}
		if p, ok := errors.AsType[*textproto.Error](err); !ok || p.Code/100 != 4 || time.Now().After(end) {
			b.t.Fatal(err)
		}
	}
	if got := len(to.Stored()); got != n+1 {
		b.t.Fatalf("platform has %d messages, want %d", got, n+1)
	}
}

func TestReloadTakesOverAllOrNothing(t *testing.T) {
	b := newBench(t)
	b.send(b.a)
	// Another address of the platform is in force at once.
	b.write(b.b.Addr(), "log: {level: debug}")
	done, err := b.Reload(t.Context())
	if err != nil || len(done.Changed) != 2 {
		t.Fatalf("reload: %+v, %v", done, err)
	}
	b.send(b.b)
	// What can't change is named, and nothing of the file is taken over.
	b.write(b.a.Addr(), "lease: {settled: 1h}")
	if _, err := b.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "lease.settled: 15m -> 1h (needs a restart)") {
		t.Errorf("reload of what can't change: %v", err)
	}
	b.send(b.b)
	b.write(b.a.Addr(), "lease: {setled: 1h}")
	if _, err := b.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "setled") {
		t.Errorf("reload of a wrong file: %v", err)
	}
	b.send(b.b)
}

// Plans go by the settings that are in force.
func TestReloadChangesPlans(t *testing.T) {
	b := newBench(t)
	plan := func() string {
		t.Helper()
		p, err := b.api.Plan(t.Context(), admin.PlanRequest{Kind: "cutover", Agency: "health"})
		if err != nil {
			t.Fatal(err)
		}
		return p.Text
	}
	if text := plan(); strings.Contains(text, "exchange: ends any connection after 20m0s") || strings.Contains(text, "mail that was put off comes") {
		t.Fatal(text)
	}
	b.onA = ", connection_limit: 20m"
	b.write(b.a.Addr(), "spool: {put_off: [health]}")
	if _, err := b.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := plan(); !strings.Contains(text, "exchange: ends any connection after 20m0s") || !strings.Contains(text, "mail that was put off comes") {
		t.Error(text)
	}
}

func TestARestartKeepsTheTable(t *testing.T) {
	b := newBench(t)
	b.send(b.a)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.send(b.a)
}

func TestWhatKeepsANodeFromStarting(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct{ change, want string }{
		"data directory in use": {"", "in use"},
		"listener's address":    {"address: \"127.0.0.1:0\"}\n  - {id: two, address: \"" + b.Addr("mx").String() + "\"}", "address already in use"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(b.path)
			if err != nil {
				t.Fatal(err)
			}
			settings := string(text)
			if c.change != "" {
				settings = strings.Replace(settings, `address: "127.0.0.1:0"}`, c.change, 1)
				settings = strings.Replace(settings, filepath.Dir(b.path), t.TempDir(), 1)
			}
			path := filepath.Join(t.TempDir(), "other.yaml")
			if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, err := config.Load(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			d, err := Start(t.Context(), cfg, Options{Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				b.stop(d)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// No secret of the configuration is ever in the log.
func TestTheLogHasNoSecrets(t *testing.T) {
	b := newBench(t)
	b.send(b.a)
	if log := b.log.String(); strings.Contains(log, token) || strings.Contains(log, "Subject: test") || !strings.Contains(log, `"msg":"message"`) {
		t.Errorf("log:\n%s", log)
	}
}
