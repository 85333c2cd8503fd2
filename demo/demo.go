package demo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailcutover/admin"
	"mailcutover/internal/config"
	"mailcutover/internal/daemon"
	"mailcutover/rollback/operation"
	"mailcutover/rollback/rehearse"
	"mailcutover/spool"
)

// The two platforms, by what they are to the three agencies.
const (
	source = "exchange"
	target = "ox"
)

// Break is a fault that the demo plants, to show that its check can fail.
type Break string

const (
	BreakNothing   Break = ""
	BreakRoute     Break = "route"     // one column of the list was sorted on its own
	BreakLose      Break = "lose"      // a platform answers 250 and keeps nothing, now and then
	BreakDuplicate Break = "duplicate" // a platform stores a message twice, now and then
)

// drainTime is how long the spool may take to send what is left at the end.
const drainTime = time.Minute

// slowDot is how long a platform takes for the one answer that a switch has to wait for,
// so that the agency is closed for long enough to see its mail being held.
const slowDot = time.Second

// faultEvery is how often a planted fault strikes, in messages.
const faultEvery = 50

// Options are the demo's settings.
type Options struct {
	Out   io.Writer // what people read
	Log   io.Writer // the node's log
	Break Break
	Stay  bool // go on until ctx ends, and print what to try

	// Rate is messages per second; Phase how long mail flows before, between and after
	// the two switches. Zero values are 300 and 3 s.
	Rate  int
	Phase time.Duration
}

// ErrBroken says that a promise was broken, or that the check found a planted fault.
var ErrBroken = errors.New("a promise was broken")

// Run shows the demo. It returns nil if every message that was answered with 250 lies
// exactly once in the right mailbox on the right platform, and every login was there, [ErrBroken] if not, and
// another error if something could not be started.
func Run(ctx context.Context, o Options) error {
	if o.Rate == 0 {
		o.Rate = 300
	}
	if o.Phase == 0 {
		o.Phase = 3 * time.Second
	}
	switch o.Break {
	case BreakNothing, BreakRoute, BreakLose, BreakDuplicate:
	default:
		return fmt.Errorf("--break %q: want %s, %s or %s", o.Break, BreakRoute, BreakLose, BreakDuplicate)
	}
	s, err := build(ctx, o)
	if err != nil {
		return err
	}
	defer s.close()
	return s.play(ctx)
}

// stage is everything that takes part.
type stage struct {
	Options
	dir       string
	token     string
	platforms map[string]*platform
	imaps     map[string]*imap
	node      *daemon.Daemon
	api       *admin.Client
	all       []mailbox
	mx        *mx
	readers   *readers
	began     time.Time
	switches  []span
	measured  []measured
}

// measured is a switch as a rehearsal records it.
type measured struct {
	kind operation.Kind
	rehearse.Switch
}

// build starts the platforms and the node, and fills the table as an operator would.
func build(ctx context.Context, o Options) (*stage, error) {
	s, err := raise(ctx, o, people())
	if err != nil {
		return nil, err
	}
	s.say("Node, source platform %s (SMTP) and target platform %s (LMTP) are up on loopback, with IMAP.", source, target)
	if err := s.fill(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// raise starts the platforms and a node with an empty table.
func raise(ctx context.Context, o Options, all []mailbox) (_ *stage, err error) {
	s := &stage{Options: o, platforms: map[string]*platform{}, imaps: map[string]*imap{}, all: all, began: time.Now(), token: rand.Text()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "mailcutover-demo-"); err != nil {
		return nil, fmt.Errorf("make a directory for the demo: %w", err)
	}
	for _, name := range []string{source, target} {
		p, err := startPlatform(name, name == target)
		if err != nil {
			return nil, err
		}
		s.platforms[name] = p
		if s.imaps[name], err = startIMAP(name); err != nil {
			delete(s.imaps, name)
			return nil, err
		}
	}
	switch o.Break {
	case BreakLose:
		s.platforms[source].lose = faultEvery
	case BreakDuplicate:
		s.platforms[source].duplicate = faultEvery
	}
	path := filepath.Join(s.dir, "mailcutover.yaml")
	if err := os.WriteFile(path, s.settings(), 0o600); err != nil {
		return nil, fmt.Errorf("write the node's configuration: %w", err)
	}
	cfg, err := config.Load(path, nil)
	if err != nil {
		return nil, fmt.Errorf("configuration of the demo: %w", err)
	}
	s.node, err = daemon.Start(ctx, cfg, daemon.Options{Logger: slog.New(slog.NewJSONHandler(o.Log, nil)), Version: admin.Version{Version: "demo"}})
	if err != nil {
		return nil, err
	}
	s.api, err = admin.NewClient("http://"+s.node.AdminAddr().String(), s.token, nil)
	if err != nil {
		return nil, err
	}
	s.readers = &readers{addr: s.node.Addr("imap").String(), all: s.all}
	s.mx = &mx{addr: s.node.Addr("mx").String(), all: s.all, closed: map[string]int{}}
	return s, nil
}

// settings are the node's, as a first real set-up would have them.
func (s *stage) settings() []byte {
	hash := config.HashToken(s.token)
	return fmt.Appendf(nil, `node: mx1.demo.example
data: %s
approval: none
lab: true
listeners:
  - {id: mx, protocol: smtp, address: "127.0.0.1:0", origin: outside}
logins:
  spread: 500ms
  listeners:
    - {id: imap, protocol: imap, address: "127.0.0.1:0", tls: {mode: none, required: false}}
platforms:
  - {id: %s, outside: {protocol: smtp, hosts: ["%s"], tls: {policy: none}}, imap: {hosts: ["%s"], tls: {policy: none}}}
  - {id: %s, outside: {protocol: lmtp, hosts: ["%s"], tls: {policy: none}}, imap: {hosts: ["%s"], tls: {policy: none}}}
routing: {postmaster: %s}
admin:
  address: "127.0.0.1:0"
  tokens: [{name: demo, person: demo, sha256: %x}]
`, filepath.Join(s.dir, "data"), source, s.platforms[source].addr(), s.imaps[source].addr(), target, s.platforms[target].addr(), s.imaps[target].addr(), s.all[0].address, hash[:])
}

// fill adds the agencies and imports the mailboxes.
func (s *stage) fill(ctx context.Context) error {
	var list bytes.Buffer
	if err := writeList(&list, s.all, s.Break == BreakRoute); err != nil {
		return fmt.Errorf("write the list of mailboxes: %w", err)
	}
	if err := s.load(ctx, &list); err != nil {
		return err
	}
	s.say("%d agencies, %d mailboxes, all on %s.", len(agencies), len(s.all), source)
	if s.Break == BreakRoute {
		s.say("Planted fault: the list's column of target addresses was sorted on its own.")
	}
	return nil
}

// load adds the agencies and imports a list of mailboxes.
func (s *stage) load(ctx context.Context, list io.Reader) error {
	for _, a := range agencies {
		_, err := s.api.AddAgency(ctx, admin.NewAgency{ID: a.id, Source: source, Target: target, Domains: []string{a.domain}, Reason: "demo"})
		if err != nil {
			return fmt.Errorf("add agency %s: %w", a.id, err)
		}
	}
	if _, err := s.api.Import(ctx, list, "demo", false); err != nil {
		return fmt.Errorf("import the list of mailboxes: %w", err)
	}
	return nil
}

// play sends mail, cuts the agency over and back, and compares.
func (s *stage) play(ctx context.Context) error {
	stop := make(chan struct{})
	var mail sync.WaitGroup
	mail.Go(func() { s.flow(ctx, stop) })
	err := s.act(ctx)
	close(stop)
	mail.Wait()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("demo ended early: %w", context.Cause(ctx))
	}
	p := s.mx.progress()
	s.say("The MX is done: %d messages, %d recipients answered 250, %d times put off and sent again.", p.messages, p.taken, p.putOff)
	if err := s.drained(ctx); err != nil {
		return err
	}
	fmt.Fprintln(s.Out)
	var stored []delivery
	for _, platform := range s.platforms {
		stored = append(stored, platform.deliveries()...)
	}
	byAgency, examples := compare(s.all, s.mx.taken, stored, s.switches)
	kept := tell(s.Out, byAgency, examples, s.mx.refused)
	kept = reportLogins(s.Out, s.readers, s.switches) && kept
	fmt.Fprintln(s.Out)
	if !kept {
		fmt.Fprintln(s.Out, "A PROMISE WAS BROKEN: see above.")
		return ErrBroken
	}
	fmt.Fprintln(s.Out, "Every message that was answered with 250 lies once in the right mailbox on the right platform, and so was every login.")
	if s.Stay {
		s.stay(ctx)
	}
	return nil
}

// flow has mail sent and read until stop is closed and all of it is delivered, or ctx ends.
func (s *stage) flow(ctx context.Context, stop <-chan struct{}) {
	var both sync.WaitGroup
	both.Go(func() { s.mx.run(ctx, s.Rate, stop) })
	both.Go(func() { s.readers.run(ctx, stop) })
	both.Wait()
}

// act waits, cuts over, waits, rolls back, and waits.
func (s *stage) act(ctx context.Context) error {
	if err := s.watch(ctx); err != nil {
		return err
	}
	if err := s.change(ctx, operation.Cutover, source, target); err != nil {
		return err
	}
	if err := s.watch(ctx); err != nil {
		return err
	}
	if err := s.change(ctx, operation.Rollback, target, source); err != nil {
		return err
	}
	return s.watch(ctx)
}

// drained waits until the spool is empty.
func (s *stage) drained(ctx context.Context) error {
	err := s.until(ctx, func() bool { return s.node.Spool().Messages == 0 })
	s.say("The spool has %d messages left.", s.node.Spool().Messages)
	return err
}

// until waits for something, but not for ever: what is left in the spool shows as lost.
func (s *stage) until(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(drainTime); !done() && time.Now().Before(end); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// watch shows the traffic for a while.
func (s *stage) watch(ctx context.Context) error {
	tick := time.NewTicker(s.Phase / 3)
	defer tick.Stop()
	for range 3 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		p := s.mx.progress()
		s.say("%6d recipients answered 250, %3d waiting at the MX   %s %d messages, %s %d", p.taken, p.waiting,
			source, s.platforms[source].count(), target, s.platforms[target].count())
	}
	return nil
}

// change arms the agency and switches it, as an operator would.
func (s *stage) change(ctx context.Context, kind operation.Kind, from, to string) error {
	a, err := s.api.Agency(ctx, moved)
	if err == nil {
		a, err = s.api.Arm(ctx, moved, a.Epoch, "demo")
	}
	if err != nil {
		return fmt.Errorf("arm agency %s: %w", moved, err)
	}
	if kind == operation.Rollback {
		// One message on its way whose answer takes its time: the switch has to wait for
		// it, and meanwhile mail is held.
		select {
		case <-s.platforms[from].answerLate():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	held, replayed := s.held()
	ours, others := s.mx.closures()
	sp := span{from: from, to: to, began: time.Now()}
	op, err := s.api.Start(ctx, kind, moved, a.Epoch, "demo")
	if err == nil {
		op, err = s.api.Watch(ctx, op.ID, func(admin.Operation) {})
	}
	if err == nil && (op.Step != string(operation.StepDone) || op.Closed == nil || op.Opened == nil) {
		err = fmt.Errorf("it ended at step %s: %s", op.Step, op.Error)
	}
	if err != nil {
		return fmt.Errorf("%s of agency %s: %w", kind, moved, err)
	}
	sp.end = time.Now()
	s.switches = append(s.switches, sp)
	ours2, others2 := s.mx.closures()
	s.say("%s of agency %s: %s -> %s, closed for %s; put off for it: %d of its recipients, %d of the other agencies'.", kind, moved, from, to,
		op.Opened.Sub(*op.Closed).Round(100*time.Microsecond), ours2-ours, others2-others)
	var held2, replayed2 int
	err = s.until(ctx, func() bool {
		held2, replayed2 = s.held()
		n := s.node.Spool()
		return n.Of(spool.StateHeld) == 0 && held2-held == replayed2-replayed
	})
	s.say("Meanwhile mail for %d recipients was held; %d were replayed in order.", held2-held, replayed2-replayed)
	s.measured = append(s.measured, measured{kind, rehearse.Switch{
		Done: true, Seconds: sp.end.Sub(sp.began).Seconds(), Closed: op.Opened.Sub(*op.Closed).Seconds(), Held: held2 - held, Replayed: replayed2 - replayed, PutOff: ours2 - ours,
	}})
	return err
}

// held returns how many recipients' mail was held so far, and how many of it were
// delivered since, as the node counts them.
func (s *stage) held() (held, replayed int) {
	return s.counted("mailcutover_spooled_total", `state="held"`),
		s.counted("mailcutover_spool_attempts_total", `kind="replay"`, `result="delivered"`)
}

// counted returns the sum of a metric's series that have all these labels, as the node
// tells it to everybody.
func (s *stage) counted(name string, labels ...string) (sum int) {
	res, err := http.Get("http://" + s.node.AdminAddr().String() + "/metrics")
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if !strings.HasPrefix(series, name+"{") || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(series, l) }) {
			continue
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			sum += int(n)
		}
	}
	return sum
}

// stay prints what to try, and waits.
func (s *stage) stay(ctx context.Context) {
	token := filepath.Join(s.dir, "token")
	if err := os.WriteFile(token, []byte(s.token+"\n"), 0o600); err != nil {
		s.say("The token could not be written: %v", err)
		return
	}
	host, example := s.mx.addr, s.all[0]
	var police *mailbox
	for i := range s.all {
		if s.all[i].agency == moved {
			police = &s.all[i]
			break
		}
	}
	fmt.Fprintf(s.Out, `
The node goes on until you press Ctrl-C. In another terminal:

  export MAILCUTOVER_API=http://%[1]s MAILCUTOVER_TOKEN_FILE=%[2]s
  go run ./cmd/mailcutover agency list
  go run ./cmd/mailcutover route explain %[4]s
  go run ./cmd/mailcutover agency cutover %[5]s --reason "to see it" --yes
  go run ./cmd/mailcutover route explain %[4]s
  go run ./cmd/mailcutover agency rollback %[5]s --reason "to see it" --yes
  swaks --server %[3]s --to %[4]s --header "X-Demo-Id: 1000001"
  curl --url smtp://%[3]s --mail-from you@elsewhere.example --mail-rcpt %[6]s \
       --upload-file README.md        # refused by the platform: not a message of the demo
  curl imap://%[7]s/ -u %[4]s:demo -X NOOP
  go run ./cmd/mailcutover session list
  curl http://%[1]s/readyz
  curl http://%[1]s/metrics | grep ^mailcutover_
`, s.node.AdminAddr(), token, host, police.address, moved, example.address, s.readers.addr)
	<-ctx.Done()
}

// say prints a line with the time since the start.
func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(s.Out, "%6.1f s  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// close ends what build started.
func (s *stage) close() {
	if s.node != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = s.node.Shutdown(ctx)
	}
	for _, p := range s.platforms {
		p.close()
	}
	for _, p := range s.imaps {
		p.close()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}
