package metrics

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailcutover/internal/alarm"
	"mailcutover/ledger/retained"
	"mailcutover/mail"
	"mailcutover/node"
	"mailcutover/rollback/canary"
	"mailcutover/routing"
	"mailcutover/routing/replica"
	"mailcutover/spool"
	"mailcutover/spool/dsn"
	"mailcutover/spool/queue"
)

var update = flag.Bool("update", false, "write docs/operations/metrics.md anew")

// table is a State with agencies in several phases.
func table(t *testing.T) *routing.State {
	t.Helper()
	var agencies []routing.Agency
	for i, phase := range []routing.Phase{routing.PhaseSource, routing.PhaseSource, routing.PhaseTarget, routing.PhaseToTarget} {
		a, err := routing.NewAgency(routing.AgencyID(fmt.Sprint("agency-", i)), "exchange", "ox")
		if err != nil {
			t.Fatal(err)
		}
		a.Phase, a.Locked, a.Revision = phase, i == 0, 1
		if i > 1 {
			a.Tightness = routing.Armed
		}
		agencies = append(agencies, a)
	}
	state, err := routing.NewState(routing.Position{}).Apply(routing.Update{
		Position: routing.Position{Incarnation: "6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2", Revision: 1},
		Agencies: agencies,
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// busy returns Metrics of a node on which everything happened once at least.
func busy(t *testing.T) *Metrics {
	t.Helper()
	set := alarm.NewSet(nil)
	set.Raise("a", "text")
	set.Raise("a", "text")
	state := table(t)
	m := New("1.2.3", Sources{
		State: func() *routing.State { return state },
		Status: func() replica.Status {
			return replica.Status{Position: routing.Position{Revision: 17}, Mailboxes: 790, Open: true, Contact: time.Now(), Missing: []routing.AgencyID{"x"}}
		},
		Load: func(id routing.AgencyID) node.Load {
			if id == "" {
				return node.Load{Open: 100}
			}
			return node.Load{Open: 1, Dotted: 2, InDoubt: 3}
		},
		Lease: func() node.KeeperStatus {
			return node.KeeperStatus{SettledUntil: time.Now().Add(time.Hour), Renewals: 5, RenewalsFailed: 2, Checks: 7, ChecksFailed: 3, Locks: make([]node.LocalLock, 2)}
		},
		Directories: func() Directories {
			return Directories{
				Read: []Directory{{Name: "ad", Age: 90 * time.Second, Took: 2 * time.Second, Objects: 4000, Problems: 3, Failures: 1}, {Name: "ucs", Age: -1}}, Drift: []Drift{{"health", 2, 5}},
			}
		},
		Compared: func() Comparisons {
			return Comparisons{Running: 1, Done: 4, Failed: 1, Compared: 200, Unreadable: 3, Open: map[string]int{"crossed": 2, "clash": 0}, Ages: map[routing.AgencyID]time.Duration{"health": time.Hour, "tax": -1}}
		},
		Waves: func() Waves {
			return Waves{States: map[string]int{"planned": 2}, Next: time.Unix(1_800_000_000, 0), Stopped: true}
		},
		Notices: func() []NoticeChannel {
			return []NoticeChannel{{Name: "night", Waiting: 3, Oldest: 90 * time.Second, Sent: 40, Lost: 2, Missed: 7}}
		},
		Canary:  func(id routing.AgencyID) bool { return id == "health" },
		Recalls: func() Recalls { return Recalls{Running: 1, Mailboxes: 20, Left: 3} },
		Retained: func() retained.Status {
			one := retained.Agency{ID: "health"}
			one.Removed.Copies = 3
			return retained.Status{Copies: 11, Bytes: 5000, Kept: 12, Failed: 2, Damaged: 1, Agencies: []retained.Agency{one}}
		},
		Alarms:       set,
		Certificates: func() map[string]time.Time { return map[string]time.Time{"mx": time.Unix(1893456000, 0)} },
		Spool:        func() spool.Counts { return spool.Counts{Messages: 3, Bytes: 4096, Recipients: held(5)} },
	})
	for i, ok := range []bool{true, false} {
		m.Canaries().Tried("health", []canary.Part{{Name: canary.Mail, OK: true}, {Name: "imap", OK: ok}}, time.Unix(1_800_000_000+int64(i), 0))
	}
	m.Canaries().Tried("tax", []canary.Part{{Name: canary.Mail}}, time.Unix(1, 0)) // its canary was taken out of the configuration
	l := m.Listener("mx")
	l.ConnectionOpened()
	l.ConnectionOpened()
	l.ConnectionClosed()
	l.ConnectionRefused("tls")
	l.ConnectionRefused("another word")
	l.Command("MAIL")
	l.Command("FROBNICATE")
	l.Reply(250)
	l.Reply(250)
	l.Reply(421)
	l.MessageEnded(1000, 2, true)
	l.MessageEnded(10, 0, false)
	e := m.Endpoint("exchange", mail.OriginOutside)
	e.Dialled("a:25", 3*time.Millisecond, nil)
	e.Dialled("a:25", time.Second, nil)
	e.Dialled("b:25", 3*time.Second, errors.New("refused"))
	e.Waited(time.Microsecond, nil)
	e.Waited(30*time.Second, errors.New("busy"))
	e.Answered("a:25", "MAIL", 250)
	e.Answered("a:25", "RCPT", 550)
	e.Answered("a:25", "DATA", 354)
	e.Answered("a:25", ".", 0)
	e.Answered("a:25", ".", 99999)
	e.Closed("a:25", "age")
	tr := m.Transfer()
	tr.Decided(routing.ReasonOpen)
	tr.Decided(routing.ReasonOpen)
	tr.Decided(routing.Reason(200))
	tr.Delivered("exchange", mail.OriginOutside, 250)
	tr.Delivered("ox", mail.OriginInside, 451)
	tr.Delivered("ox", mail.OriginInside, 0)
	tr.InDoubt("ox")
	tr.Spooled(spool.StateHeld)
	q := m.Queue()
	q.Attempted("ox", true, queue.Delivered)
	q.Attempted("ox", true, queue.Delivered)
	q.Attempted("exchange", false, queue.InDoubt)
	q.Notified(dsn.Failed)
	q.Quarantined()
	lines(t, m,
		`mailcutover_directory_age_seconds{directory="ad"} 90`, `mailcutover_directory_age_seconds{directory="ucs"} -1`, `mailcutover_directory_objects{directory="ad"} 4000`,
		`mailcutover_directory_problems{directory="ad"} 3`, `mailcutover_directory_read_seconds{directory="ad"} 2`, `mailcutover_directory_failures_total{directory="ad"} 1`,
		`mailcutover_directory_drift{agency="health",blocks="yes"} 2`, `mailcutover_directory_drift{agency="health",blocks="no"} 5`)
	g := m.Logins()
	g.LoginEnded("imap", "ok", "ox", time.Second)
	g.LoginEnded("imap", "wrong", "ox", 2*time.Second)
	g.LoginEnded("pop3", "no-such-name", "", time.Millisecond)
	g.SessionOpened("imap", "ox")
	g.SessionOpened("imap", "ox")
	g.SessionSuspended("imap")
	g.SessionEnded("imap", "ox", "moved", 100, 2000, time.Hour)
	c := m.LoginListener("imaps")
	c.ConnectionOpened()
	c.ConnectionRefused("tls")
	return m
}

// held returns counts by state with n held recipients.
func held(n int) (by [len(spool.Counts{}.Recipients)]int) {
	by[spool.StateHeld] = n
	return by
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scrape answers %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestWhatIsScraped(t *testing.T) {
	text := scrape(t, busy(t))
	for _, line := range []string{
		`mailcutover_spooled_total{state="held"} 1`,
		`mailcutover_spool_attempts_total{kind="replay",platform="ox",result="delivered"} 2`,
		`mailcutover_spool_attempts_total{kind="retry",platform="exchange",result="in-doubt"} 1`,
		`mailcutover_notices_total{kind="failed"} 1`,
		`mailcutover_quarantined_total 1`,
		`mailcutover_logins_total{cause="ok",platform="ox",protocol="imap"} 1`,
		`mailcutover_logins_total{cause="no-such-name",platform="",protocol="pop3"} 1`,
		`mailcutover_login_seconds_sum{protocol="imap"} 3`,
		`mailcutover_login_sessions{platform="ox",protocol="imap"} 1`,
		`mailcutover_login_sessions_ended_total{by="moved",platform="ox",protocol="imap"} 1`,
		`mailcutover_login_sessions_suspended_total{protocol="imap"} 1`,
		`mailcutover_login_bytes_total{direction="to-client",platform="ox",protocol="imap"} 2000`,
		`mailcutover_listener_connections{listener="imaps"} 1`,
		`mailcutover_listener_refused_total{listener="imaps",reason="tls"} 1`,
		`mailcutover_listener_refused_total{listener="imaps",reason="proxy-header"} 0`,
		`mailcutover_spool_recipients{state="held"} 5`,
		`mailcutover_spool_recipients{state="waiting"} 0`,
		`mailcutover_spool_messages 3`,
		`mailcutover_spool_bytes 4096`,
		`mailcutover_waves{state="planned"} 2`,
		`mailcutover_canary_tries_total{agency="health",part="mail",result="well"} 2`,
		`mailcutover_canary_tries_total{agency="health",part="imap",result="failed"} 1`,
		`mailcutover_canary_success_timestamp_seconds{agency="health",part="mail"} 1.800000001e+09`,
		`mailcutover_canary_success_timestamp_seconds{agency="health",part="imap"} 1.8e+09`,
		`mailcutover_notice_waiting{channel="night"} 3`,
		`mailcutover_notice_oldest_seconds{channel="night"} 90`,
		`mailcutover_notice_events_total{channel="night",result="sent"} 40`,
		`mailcutover_notice_events_total{channel="night",result="lost"} 2`,
		`mailcutover_notice_failures_total{channel="night"} 7`,
		`mailcutover_wave_next_start_timestamp_seconds 1.8e+09`,
		`mailcutover_plan_stopped 1`,
		`mailcutover_verify_running 1`,
		`mailcutover_verify_runs_total{result="done"} 4`,
		`mailcutover_verify_runs_total{result="failed"} 1`,
		`mailcutover_verify_mailboxes_total{result="compared"} 200`,
		`mailcutover_verify_mailboxes_total{result="unreadable"} 3`,
		`mailcutover_verify_findings{kind="crossed"} 2`,
		`mailcutover_verify_findings{kind="clash"} 0`,
		`mailcutover_verify_age_seconds{agency="health"} 3600`,
		`mailcutover_verify_age_seconds{agency="tax"} -1`,
		`mailcutover_retained_copies 11`,
		`mailcutover_retained_bytes 5000`,
		`mailcutover_retained_total{result="kept"} 12`,
		`mailcutover_retained_total{result="failed"} 2`,
		`mailcutover_retained_removed 3`,
		`mailcutover_retained_damaged_total 1`,
		`mailcutover_listener_connections{listener="mx"} 1`,
		`mailcutover_listener_connections_total{listener="mx"} 2`,
		`mailcutover_listener_refused_total{listener="mx",reason="tls"} 1`,
		`mailcutover_listener_refused_total{listener="mx",reason="connections"} 0`,
		`mailcutover_listener_refused_total{listener="mx",reason="another word"} 1`,
		`mailcutover_listener_commands_total{listener="mx",verb="MAIL"} 1`,
		`mailcutover_listener_commands_total{listener="mx",verb="OTHER"} 1`,
		`mailcutover_listener_replies_total{code="250",listener="mx"} 2`,
		`mailcutover_listener_replies_total{code="421",listener="mx"} 1`,
		`mailcutover_listener_messages_total{end="complete",listener="mx"} 1`,
		`mailcutover_listener_messages_total{end="cut",listener="mx"} 1`,
		`mailcutover_listener_message_bytes_total{listener="mx"} 1010`,
		`mailcutover_listener_repaired_total{listener="mx"} 2`,
		`mailcutover_platform_connections{host="a:25",origin="outside",platform="exchange"} 1`,
		`mailcutover_platform_connections{host="b:25",origin="outside",platform="exchange"} 0`,
		`mailcutover_platform_dials_total{host="a:25",origin="outside",platform="exchange",result="ok"} 2`,
		`mailcutover_platform_dials_total{host="b:25",origin="outside",platform="exchange",result="error"} 1`,
		`mailcutover_platform_dial_seconds_count{origin="outside",platform="exchange"} 3`,
		`mailcutover_platform_dial_seconds_bucket{origin="outside",platform="exchange",le="0.005"} 1`,
		`mailcutover_platform_waits_total{origin="outside",platform="exchange",result="error"} 1`,
		`mailcutover_platform_wait_seconds_bucket{origin="outside",platform="exchange",le="0.001"} 1`,
		`mailcutover_platform_answers_total{code="550",host="a:25",origin="outside",platform="exchange",verb="RCPT"} 1`,
		`mailcutover_platform_answers_total{code="354",host="a:25",origin="outside",platform="exchange",verb="DATA"} 1`,
		`mailcutover_platform_answers_total{code="000",host="a:25",origin="outside",platform="exchange",verb="."} 2`,
		`mailcutover_platform_connections_closed_total{origin="outside",platform="exchange",reason="age"} 1`,
		`mailcutover_decisions_total{reason="open"} 2`,
		`mailcutover_decisions_total{reason="unknown"} 1`,
		`mailcutover_deliveries_total{class="2yz",origin="outside",platform="exchange"} 1`,
		`mailcutover_deliveries_total{class="4yz",origin="inside",platform="ox"} 1`,
		`mailcutover_deliveries_total{class="none",origin="inside",platform="ox"} 1`,
		`mailcutover_in_doubt_total{platform="ox"} 1`,
		`mailcutover_in_flight{stage="open"} 104`,
		`mailcutover_in_flight{stage="dotted"} 8`,
		`mailcutover_in_doubt 12`,
		`mailcutover_table_revision 17`,
		`mailcutover_table_usable 1`,
		`mailcutover_mailboxes 790`,
		`mailcutover_agencies{phase="source"} 2`,
		`mailcutover_agencies{phase="to-target"} 1`,
		`mailcutover_agencies{phase="target"} 1`,
		`mailcutover_agencies{phase="to-source"} 0`,
		`mailcutover_agencies_locked 1`,
		`mailcutover_agencies_armed 2`,
		`mailcutover_agencies_unusable 1`,
		`mailcutover_alarms 1`,
		`mailcutover_alarms_raised_total 2`,
		`mailcutover_certificate_expiry_timestamp_seconds{listener="mx"} 1.893456e+09`,
		`mailcutover_alarms_by_kind{kind="a"} 1`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			name, _, _ := strings.Cut(line, "{")
			name, _, _ = strings.Cut(name, " ")
			t.Errorf("%s is missing; there is\n%s", line, strings.Join(regexp.MustCompile(`(?m)^`+name+`.*$`).FindAllString(text, -1), "\n"))
		}
	}
	if !strings.Contains(text, `mailcutover_build_info{goversion="go1`) || !strings.Contains(text, "go_goroutines") {
		t.Error("build or runtime are missing")
	}
}

// The list and what is scraped have the same names, kinds, labels and help.
func TestListIsComplete(t *testing.T) {
	families, err := busy(t).Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]Desc)
	for _, d := range All() {
		if _, twice := all[d.Name]; twice {
			t.Errorf("%s is in the list twice", d.Name)
		}
		all[d.Name] = d
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "mailcutover_") {
			continue
		}
		d, ok := all[f.GetName()]
		delete(all, f.GetName())
		if !ok {
			t.Errorf("%s is not in the list", f.GetName())
			continue
		}
		if kind := strings.ToLower(f.GetType().String()); kind != string(d.Kind) || f.GetHelp() != d.Help {
			t.Errorf("%s is a %s with help %q, the list says %s and %q", d.Name, kind, f.GetHelp(), d.Kind, d.Help)
		}
		for _, metric := range f.GetMetric() {
			var labels []string
			for _, l := range metric.GetLabel() {
				labels = append(labels, l.GetName())
			}
			if want := slices.Sorted(slices.Values(d.Labels)); !slices.Equal(labels, want) {
				t.Errorf("%s has labels %v, the list says %v", d.Name, labels, want)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Errorf("%s is in the list, but nothing counts it", name)
	}
}

func TestNames(t *testing.T) {
	name := regexp.MustCompile(`^mailcutover_[a-z]+(_[a-z]+)*$`)
	for _, d := range All() {
		if !name.MatchString(d.Name) || !strings.HasSuffix(d.Help, ".") {
			t.Errorf("%s: %q", d.Name, d.Help)
		}
		if got := strings.HasSuffix(d.Name, "_total"); got != (d.Kind == Counter) {
			t.Errorf("%s is a %s: counters, and only they, end in _total", d.Name, d.Kind)
		}
		if d.Kind == Histogram && !strings.HasSuffix(d.Name, "_seconds") {
			t.Errorf("%s: histograms are of times and end in _seconds", d.Name)
		}
	}
}

// Each reason of a decision has a word of its own.
func TestReasonsHaveWords(t *testing.T) {
	seen := make(map[string]bool)
	for i, word := range reasonWords {
		if word == "" || seen[word] {
			t.Errorf("reason %d, %q, has the word %q", i, routing.Reason(i), word)
		}
		seen[word] = true
	}
	// Beyond the last reason String says the same as for the unknown one.
	if next := routing.Reason(len(reasonWords)); next.String() != routing.ReasonUnknown.String() {
		t.Errorf("reason %d, %q, has no word", next, next)
	}
}

func TestWithoutSources(t *testing.T) {
	text := scrape(t, New("1", Sources{}))
	if strings.Contains(text, "mailcutover_table") || strings.Contains(text, "mailcutover_alarms") {
		t.Error("a source that isn't there says something")
	}
	never := New("1", Sources{Status: func() replica.Status { return replica.Status{} }})
	if text := scrape(t, never); !strings.Contains(text, "\nmailcutover_table_age_seconds -1\n") || !strings.Contains(text, "\nmailcutover_table_usable 0\n") {
		t.Errorf("a table that was never reached shows as\n%s", text)
	}
}

func TestObserversAreKept(t *testing.T) {
	m := New("1", Sources{})
	if first, again := m.Listener("mx"), m.Listener("mx"); first != again || first == m.Listener("lmtp") {
		t.Error("a listener's observer is not the same each time, or another's")
	}
	if first, again := m.Endpoint("a", mail.OriginInside), m.Endpoint("a", mail.OriginInside); first != again || first == m.Endpoint("a", mail.OriginOutside) {
		t.Error("an endpoint's observer is not the same each time, or another's")
	}
}

// message is what is counted for one message.
func message(l *Listener, e *Endpoint, tr *Transfer) {
	for _, verb := range []string{"MAIL", "RCPT", "DATA"} {
		l.Command(verb)
		e.Answered("a:25", verb, 250)
		l.Reply(250)
	}
	tr.Decided(routing.ReasonOpen)
	e.Waited(time.Microsecond, nil)
	e.Answered("a:25", ".", 250)
	tr.Delivered("exchange", mail.OriginOutside, 250)
	l.MessageEnded(10_000, 0, true)
	l.Reply(250)
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := New("1", Sources{})
	l, e, tr := m.Listener("mx"), m.Endpoint("exchange", mail.OriginOutside), m.Transfer()
	message(l, e, tr)
	if n := testing.AllocsPerRun(100, func() { message(l, e, tr) }); n != 0 {
		t.Errorf("counting a message allocates %v times, want 0", n)
	}
}

func TestConcurrent(t *testing.T) {
	m := New("1", Sources{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 200 {
				message(m.Listener("mx"), m.Endpoint("exchange", mail.OriginOutside), m.Transfer())
				m.Listener("mx").Reply(200 + j%10)
				m.Endpoint("exchange", mail.OriginOutside).Answered(fmt.Sprint("h", (i+j)%5), "RCPT", 250)
				if j%100 == 0 {
					if _, err := m.Gatherer().Gather(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	text := scrape(t, m)
	for _, line := range []string{
		`mailcutover_listener_messages_total{end="complete",listener="mx"} 1600`,
		`mailcutover_platform_answers_total{code="250",host="h3",origin="outside",platform="exchange",verb="RCPT"} 320`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is missing", line)
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	m := New("1", Sources{})
	l, e, tr := m.Listener("mx"), m.Endpoint("exchange", mail.OriginOutside), m.Transfer()
	b.ReportAllocs()
	for b.Loop() {
		message(l, e, tr)
	}
}

// The reference for operators is made from the list.
func TestReference(t *testing.T) {
	const path = "../../docs/operations/metrics.md"
	if *update {
		if err := os.WriteFile(path, []byte(Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != Reference() {
		t.Errorf("%s is not what the list makes; run: go test ./internal/metrics -run Reference -update", path)
	}
}
