package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailcutover/internal/platformtest"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/proxy/dial"
	"mailcutover/proxy/relay"
	"mailcutover/proxy/smtp"
	"mailcutover/routing"
	"mailcutover/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a listener, the transfer, and two platforms: exchange speaks SMTP, ox LMTP.
// The agencies health and police are on exchange.
type world struct {
	t         *testing.T
	transfer  *Transfer
	options   Options
	gate      *node.Gate
	platforms map[string]*platformtest.Platform
	seen      map[string]int    // transactions of a platform that the transcript has named
	results   map[string]string // LMTP's answers to the dot that aren't the usual ones, by recipient

	server *smtp.Server
	socket net.Listener
	client net.Conn
	lines  *bufio.Reader

	mu        sync.Mutex
	state     *routing.State
	lapsed    bool
	behind    bool // the table has names that this node hasn't
	alarms    []string
	counted   []string // for metrics
	store     *spool.Store
	book      *ledger.Ledger
	ledgerDir string
	noted     int // records of the ledger that the transcript has named
	added     []mail.TransactionID
}

func (w *world) State() *routing.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

func (w *world) Fresh() (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now(), !w.lapsed
}

// rights are those of a node whose copy of the table may be behind.
type rights struct {
	node.Lease
	w *world
}

func (r rights) Names(context.Context, routing.Position) error {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if r.w.behind {
		return errors.New("a name was changed since")
	}
	return nil
}

func (w *world) Raise(key, _ string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alarms = append(w.alarms, key)
}

func (w *world) Decided(routing.Reason) {}
func (w *world) Delivered(p routing.PlatformID, o mail.Origin, code int) {
	w.count("delivered %s %s %d", p, o, code)
}
func (w *world) InDoubt(p routing.PlatformID) { w.count("in doubt %s", p) }
func (w *world) Spooled(s spool.State)        { w.count("spooled %s", s) }

func (w *world) count(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counted = append(w.counted, fmt.Sprintf(format, args...))
}

// connectionLimit is the platforms'.
const connectionLimit = time.Hour

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, platforms: map[string]*platformtest.Platform{}, seen: map[string]int{}, results: map[string]string{}, state: routing.NewState(routing.Position{Incarnation: "test"})}
	w.gate = node.NewGate(w, rights{node.Lease{Settled: time.Hour, Armed: time.Hour}, w}, "+")
	u := routing.Update{
		Position: routing.Position{Incarnation: "test"},
		Domains:  []routing.Domain{{Name: "health.example"}, {Name: "police.example"}},
		Fixed:    []routing.Fixed{{Address: "all@health.example", Kind: "group", Platform: "exchange", At: "everybody@health.example"}},
	}
	number := byte(0)
	for agency, names := range map[routing.AgencyID][]string{"health": {"anna", "bert"}, "police": {"carl"}} {
		rec, err := routing.NewAgency(agency, "exchange", "ox")
		if err != nil {
			t.Fatal(err)
		}
		var rows []routing.Row
		for _, name := range names {
			number++
			address := routing.Address(name + "@" + string(agency) + ".example")
			addresses := []routing.Address{address}
			if name == "anna" {
				addresses = append(addresses, "office@health.example")
			}
			rows = append(rows, routing.Row{
				Mailbox: routing.MailboxID{number}, Kind: routing.KindUser, Addresses: addresses,
				Target: routing.Place{Address: routing.Address(name + "@ox.internal")},
			})
		}
		m, err := routing.NewMapping(agency, rows)
		if err != nil {
			t.Fatal(err)
		}
		rec.Mapping = m.Digest()
		u.Agencies = append(u.Agencies, rec)
		u.Mappings = append(u.Mappings, m)
	}
	w.apply(u)
	w.options = Options{
		Gate: w.gate, Postmaster: "anna@health.example", Node: "mx1.example", Installation: "test",
		HopLimit: 50, OwnLimit: 4, Alarms: w, Observer: w, Logger: slog.New(slog.DiscardHandler),
	}
	for _, id := range []string{"exchange", "ox"} {
		p, err := platformtest.Start(platformtest.Options{LMTP: id == "ox"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		w.platforms[id] = p
		ep := relay.Endpoint{
			Platform: routing.PlatformID(id), Origin: mail.OriginOutside, Protocol: relay.ProtocolSMTP,
			Hosts: []string{p.Addr()}, Helo: "mx1.example", TLS: dial.TLS{Policy: dial.TLSNone},
		}
		if id == "ox" {
			ep.Protocol = relay.ProtocolLMTP
		}
		pool, err := relay.NewPool(ep, relay.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		w.options.Platforms = append(w.options.Platforms, relay.Platform{ID: ep.Platform, ConnectionLimit: connectionLimit, Outside: pool, Inside: pool})
	}
	w.transfer = New(w.options)
	return w
}

// apply puts an update of the table into force.
func (w *world) apply(u routing.Update) {
	w.t.Helper()
	old := w.State()
	now, err := old.Apply(u)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.state = now
	w.mu.Unlock()
	w.gate.Update(old, now)
}

// listen starts the listener and connects to it.
func (w *world) listen(protocol smtp.Protocol) {
	w.t.Helper()
	o := smtp.DefaultOptions()
	o.ID, o.Hostname, o.Protocol = "test", "mx1.example", protocol
	var err error
	if w.server, err = smtp.NewServer(o, w.transfer); err != nil {
		w.t.Fatal(err)
	}
	if w.socket, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(ctx, w.socket) }()
	w.t.Cleanup(func() { cancel(); <-served })
	if w.client, err = net.Dial("tcp", w.socket.Addr().String()); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = w.client.Close() })
	w.lines = bufio.NewReader(w.client)
}

// reply reads one whole reply and returns its last line.
func (w *world) reply() (string, error) {
	_ = w.client.SetReadDeadline(time.Now().Add(time.Minute))
	for {
		line, err := w.lines.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line = strings.TrimRight(line, "\r\n"); len(line) < 4 || line[3] != '-' {
			return line, nil
		}
	}
}

// eventually asks again until nothing is wrong: for what may follow an answer, and not come before it
// as what the ledger has.
func (w *world) eventually(wrong func() error) {
	w.t.Helper()
	if err := w.soon(wrong); err != nil {
		w.t.Error(err)
	}
}

// soon is eventually for those who pass on what stays wrong.
func (w *world) soon(wrong func() error) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		if err := wrong(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

// agency takes an agency's record one step further.
func (w *world) agency(id, event string) error {
	rec, ok := w.State().Agency(routing.AgencyID(id))
	if !ok {
		return fmt.Errorf("no agency %s", id)
	}
	var err error
	switch event {
	case "arm":
		rec = rec.Arm()
	case "begin":
		rec, err = rec.Begin("op", 7, routing.EventBegin)
	case "commit":
		rec, err = rec.Commit("op", 7)
	case "publish":
		rec, err = rec.Publish("op")
	case "lock":
		rec, err = rec.Lock()
	default:
		err = fmt.Errorf("no event %s", event)
	}
	if err == nil {
		w.apply(routing.Update{Position: w.State().Position(), Agencies: []routing.Agency{rec}})
	}
	return err
}

// claim gives an agency a mapping of one mailbox with this address.
func (w *world) claim(id routing.AgencyID, address routing.Address) error {
	rec, _ := w.State().Agency(id)
	m, err := routing.NewMapping(id, []routing.Row{{Mailbox: routing.MailboxID{77}, Kind: routing.KindUser, Addresses: []routing.Address{address}}})
	if err != nil {
		return err
	}
	rec.Mapping, rec.Epoch = m.Digest(), rec.Epoch.Next()
	w.apply(routing.Update{Position: w.State().Position(), Agencies: []routing.Agency{rec}, Mappings: []*routing.Mapping{m}})
	return nil
}

// stored compares the next message that a platform took with "FROM -> RCPT RCPT".
func (w *world) stored(platform, want string) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	n := w.seen[platform] + 1
	all, err := w.platforms[platform].WaitStored(ctx, n)
	if err != nil {
		return err
	}
	w.seen[platform] = n
	got := all[n-1].From + " -> " + strings.Join(all[n-1].Accepted(), " ")
	if got != want {
		return fmt.Errorf("%s took %q, want %q", platform, got, want)
	}
	return nil
}

// openSpool puts a spool and a ledger behind the transfer.
func (w *world) openSpool(messages, ofAgency int) error {
	var err error
	quiet := slog.New(slog.DiscardHandler)
	w.store, err = spool.Open(spool.Options{Dir: filepath.Join(w.t.TempDir(), "spool"), Node: "mx1", Bounds: spool.Bounds{Messages: messages, AgencyMessages: ofAgency}, Logger: quiet})
	if err != nil {
		return err
	}
	w.t.Cleanup(func() { _ = w.store.Close() })
	w.ledgerDir = filepath.Join(w.t.TempDir(), "ledger")
	book, err := ledger.Open(ledger.Options{Dir: w.ledgerDir, Boot: "this", Logger: quiet})
	if err != nil {
		return err
	}
	w.t.Cleanup(func() { _ = book.Close() })
	w.options.Spool, w.options.Ledger, w.book = w.store, book, book
	w.options.Added = func(id mail.TransactionID, first int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if first == 0 { // else more of the last one
			w.added = append(w.added, id)
		}
	}
	w.transfer.Configure(w.options)
	return nil
}

// spooled compares the next message that the spool took with "FROM -> ADDRESS:STATE ...". Of one in
// doubt, which rests for the platform's limit, the state is followed by "rests", and of mail from
// inside all by "inside".
func (w *world) spooled(want string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if want == "nothing" {
		if n, _ := w.store.Counts(); n.Messages != 0 || len(w.added) != 0 {
			return fmt.Errorf("the spool has %d messages, was told %d", n.Messages, len(w.added))
		}
		return nil
	}
	if len(w.added) == 0 {
		return errors.New("the spool took no message")
	}
	m, err := w.store.Get(w.added[0])
	if err != nil {
		return err
	}
	w.added = w.added[1:]
	got := m.From.String() + " ->"
	for _, r := range m.Recipients {
		got += " " + string(r.Address) + ":" + r.State.String()
		if r.Last.Cause == spool.CauseDoubt && time.Until(r.Last.Next) > connectionLimit/2 {
			got += ":rests"
		}
	}
	if m.Client.Origin == mail.OriginInside {
		got += " inside"
	}
	if got != want {
		return fmt.Errorf("the spool took %q, want %q", got, want)
	}
	b, err := w.store.Open(m.Transaction)
	if err != nil {
		return err
	}
	defer b.Close()
	text, err := io.ReadAll(b)
	if err == nil {
		err = b.Verify()
	}
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(text), "Received: from mx.elsewhere.example") || !strings.Contains(string(text), string(m.Transaction)) || !strings.HasSuffix(string(text), "\r\n") {
		return fmt.Errorf("the spool has %q", text)
	}
	_, header, _ := strings.Cut(string(text), "\r\nMessage-ID: ")
	if id, _, _ := strings.Cut(header, "\r\n"); m.MessageID != id {
		return fmt.Errorf("the spool has the Message-ID %q of %q", m.MessageID, text)
	}
	return nil
}

// fill puts a message into the spool that holds a place of an agency's.
func (w *world) fill(agency string) error {
	id := mail.NewTransactionID()
	in, err := w.store.Begin(spool.Envelope{Transaction: id, Time: time.Now()})
	if err != nil {
		return err
	}
	defer in.Discard()
	rcpt := spool.Recipient{Address: routing.Address("filler@" + agency + ".example"), Agency: routing.AgencyID(agency), Mailbox: routing.MailboxID{99}, State: spool.StateHeld}
	return in.Commit(w.t.Context(), []spool.Recipient{rcpt})
}

// record compares the next record of the ledger with "PLATFORM ADDRESS=RESULT ...", where
// the platform is spool for what the spool took.
func (w *world) record(want string) error {
	var all []ledger.Record
	for r, err := range w.book.Find(w.t.Context(), ledger.Query{}) {
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	if w.noted++; len(all) < w.noted {
		return fmt.Errorf("the ledger has %d records", len(all))
	}
	r := &all[len(all)-w.noted] // the newest is the first
	got := string(r.Platform)
	if r.Local {
		got = "spool"
	}
	for i := range r.Recipients {
		got += " " + string(r.Recipients[i].Address) + "=" + r.Answer(i).Result.String()
	}
	if got != want {
		return fmt.Errorf("the ledger has %q, want %q", got, want)
	}
	return nil
}

// do carries out one line of a transcript.
func (w *world) do(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	args := strings.Fields(rest)
	switch word {
	case "listener":
		if rest == "lmtp" {
			w.listen(smtp.ProtocolLMTP)
		} else {
			w.listen(smtp.ProtocolSMTP)
		}
	case "C:":
		_, err := w.client.Write([]byte(strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(rest) + "\r\n"))
		return err
	case "S:":
		got, err := w.reply()
		if err != nil {
			return err
		}
		if !strings.HasPrefix(got, rest) {
			return fmt.Errorf("got %q", got)
		}
	case "claim": // AGENCY ADDRESS, which may be another's too
		return w.claim(routing.AgencyID(args[0]), routing.Address(args[1]))
	case "agency":
		return w.agency(args[0], args[1])
	case "script": // PLATFORM VERB REPLY...
		reply := strings.Join(args[2:], " ")
		r := platformtest.Reaction{Reply: reply}
		if reply == "drop" {
			r = platformtest.Reaction{Drop: platformtest.DropBefore}
		}
		w.platforms[args[0]].SetScript(platformtest.On(args[1], r))
	case "usual":
		clear(w.results)
		w.platforms[rest].SetScript(nil)
	case "from": // mail from this net is the platform's own
		for i := range w.options.Platforms {
			if p := &w.options.Platforms[i]; string(p.ID) == args[0] {
				p.Nets = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
				p.RelaysInside = len(args) > 1
			}
		}
		w.transfer.Configure(w.options)
	case "stored":
		platform, want, _ := strings.Cut(rest, " ")
		return w.stored(platform, want)
	case "spool": // on, with the bounds' number of messages, and that of an agency's
		var bounds [2]int
		for i, arg := range args {
			var err error
			if bounds[i], err = strconv.Atoi(arg); err != nil {
				return err
			}
		}
		return w.openSpool(bounds[0], bounds[1])
	case "fill": // AGENCY: one more message of its is in the spool
		return w.fill(rest)
	case "ledger": // PLATFORM ADDRESS=RESULT ..., of its next record
		return w.record(rest)
	case "spooled": // FROM -> ADDRESS:STATE ..., of the next message that the spool took
		return w.spooled(rest)
	case "down": // the platform is gone
		w.platforms[rest].Close()
	case "put-off":
		w.options.PutOff = map[routing.AgencyID]struct{}{routing.AgencyID(rest): {}}
		w.transfer.Configure(w.options)
	case "result": // PLATFORM RCPT REPLY...: LMTP's answer to the dot for one of them
		w.results[args[1]] = strings.Join(args[2:], " ")
		results := maps.Clone(w.results)
		w.platforms[args[0]].SetScript(func(c platformtest.Command) platformtest.Reaction {
			if c.Verb == platformtest.VerbDot {
				return platformtest.Reaction{Reply: results[c.Rcpt]}
			}
			return platformtest.Reaction{}
		})
	case "close-spool": // when PLATFORM gets the dot, of which it refuses RCPT
		w.platforms[args[0]].SetScript(func(c platformtest.Command) platformtest.Reaction {
			if c.Verb == platformtest.VerbDot && c.Rcpt == args[1] {
				_ = w.store.Close()
				return platformtest.Reaction{Reply: "452 4.2.2 Mailbox full"}
			}
			return platformtest.Reaction{}
		})
	case "nothing":
		if n := len(w.platforms[rest].Stored()); n != w.seen[rest] {
			return fmt.Errorf("%s took %d messages, the transcript names %d", rest, n, w.seen[rest])
		}
	case "alarm":
		return w.soon(func() error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.alarms) == 0 || !strings.HasPrefix(w.alarms[0], rest) {
				return fmt.Errorf("alarms are %q", w.alarms)
			}
			w.alarms = w.alarms[1:]
			return nil
		})
	case "lapse": // at once, or when PLATFORM gets the dot
		lapse := func() {
			w.mu.Lock()
			w.lapsed = true
			w.mu.Unlock()
		}
		if rest == "" {
			lapse()
			return nil
		}
		w.platforms[rest].SetScript(func(c platformtest.Command) platformtest.Reaction {
			if c.Verb == platformtest.VerbDot {
				lapse()
			}
			return platformtest.Reaction{}
		})
	case "counted": // what was, since the transcript has asked
		w.mu.Lock()
		defer w.mu.Unlock()
		got := strings.Join(w.counted, ", ")
		if w.counted = nil; got != rest {
			return fmt.Errorf("counted were %q", got)
		}
	case "behind":
		w.mu.Lock()
		w.behind = true
		w.mu.Unlock()
	case "doubts":
		return w.soon(func() error {
			if l := w.gate.Load(routing.AgencyID(args[0])); fmt.Sprint(l.InDoubt) != args[1] {
				return fmt.Errorf("load is %+v", l)
			}
			return nil
		})
	default:
		return errors.New("no such directive")
	}
	return nil
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			for i, line := range strings.Split(string(text), "\n") {
				if line == "" || line[0] == '#' {
					continue
				}
				if err := w.do(line); err != nil {
					t.Fatalf("line %d: %s: %v", i+1, line, err)
				}
			}
			_ = w.client.Close()
			w.eventually(func() error {
				for _, agency := range []routing.AgencyID{"health", "police"} {
					if l := w.gate.Load(agency); l.Open+l.Dotted != 0 {
						return fmt.Errorf("of agency %s is under way when the session has ended: %+v", agency, l)
					}
				}
				return nil
			})
			if len(w.added) > 0 {
				t.Errorf("%d spooled messages that the transcript doesn't name", len(w.added))
			}
			for id, p := range w.platforms {
				if n := len(p.Stored()); n != w.seen[id] {
					t.Errorf("%s took %d messages, the transcript names %d", id, n, w.seen[id])
				}
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.alarms) > 0 {
				t.Errorf("alarms that the transcript doesn't name: %q", w.alarms)
			}
		})
	}
}
