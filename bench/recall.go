package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"mailcutover/bench/figure"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/recall"
	"mailcutover/routing"
	"mailcutover/test/mailboxes"
	"mailcutover/test/peers"
)

// recallAtOnce is how many mailboxes are brought at once.
const recallAtOnce = 8

// recalled measures bringing whole mailboxes from one Dovecot to another, as after a
// rollback: listing both sides, bringing, finding again.
func recalled(t peers.TB, o options) figure.Part {
	const master = "auth_master_user_separator = *\npassdb {\n driver = static\n master = yes\n args = password=master\n}\n"
	const limits = "mail_max_userip_connections = 100\nnamespace inbox {\n inbox = yes\n separator = /\n}\n"
	target := peers.StartDovecot(t, peers.DovecotOptions{First: master, Extra: limits})
	source := peers.StartDovecot(t, peers.DovecotOptions{First: master, Extra: limits})
	dir, err := os.MkdirTemp("", "mailcutover-bench-")
	if err != nil {
		t.Fatalf("directory for the bench of recall: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("remove directory of the bench of recall: %v", err)
		}
	})
	journals, err := recall.OpenJournals(dir)
	if err != nil {
		t.Fatalf("%v", err)
	}
	e, err := recall.New(recall.Options{From: benchStore(t, "ox", target), To: benchStore(t, "exchange", source), Journals: journals})
	if err != nil {
		t.Fatalf("%v", err)
	}
	each := max(50, int(o.turn.Seconds()*125)) // 500 in a full turn
	var rates, again, peaks []float64
	n := 0
	for i := range o.rounds {
		var rows []routing.Row
		for range recallAtOnce {
			n++
			rows = append(rows, benchRow(t, n))
			m := mailboxes.Make(string(rows[len(rows)-1].Addresses[0]), mailboxes.Options{Seed: uint64(n), Messages: each})
			if err := m.WriteMaildir(filepath.Join(target.Dir(), m.Address)); err != nil {
				t.Fatalf("%v", err)
			}
		}
		took, brought, peak := recallAll(t, e, rows)
		if brought != recallAtOnce*each {
			t.Fatalf("%d messages brought of %d", brought, recallAtOnce*each)
		}
		idle, twice, _ := recallAll(t, e, rows)
		if twice != 0 {
			t.Fatalf("%d messages brought by a second run", twice)
		}
		rates, peaks = append(rates, float64(brought)/took.Seconds()), append(peaks, peak)
		again = append(again, float64(recallAtOnce*each)/idle.Seconds())
		fmt.Fprintf(o.progress, "round %d of %d: %.0f messages a second\n", i+1, o.rounds, rates[i])
	}
	size, many := 100<<20, o.large
	if o.turn < time.Second { // a try-out
		size, many = 4<<20, min(many, 1000)
	}
	line := append(bytes.Repeat([]byte("0123456789"), 7), "\r\n"...)
	big := benchRow(t, n+1)
	inbox(t, target, big, func(i int) (mailboxes.Message, bool) {
		address := string(big.Addresses[0])
		return mailboxes.Text(fmt.Sprintf("large-%d", i), "a@out.example", address, time.Now(), string(bytes.Repeat(line, size/len(line)))), i < 2
	})
	_, _, largest := recallAll(t, e, []routing.Row{big})
	full := benchRow(t, n+2)
	const fresh = 500
	begin := time.Now().Add(-time.Duration(many+fresh) * time.Minute)
	one := func(most int) func(int) (mailboxes.Message, bool) {
		return func(i int) (mailboxes.Message, bool) {
			address := string(full.Addresses[0])
			return mailboxes.Text(fmt.Sprintf("many-%d", i), "a@out.example", address, begin.Add(time.Duration(i)*time.Minute), "Guten Tag"), i < most
		}
	}
	inbox(t, target, full, one(many+fresh))
	inbox(t, source, full, one(many))
	took, brought, most := recallAll(t, e, []routing.Row{full})
	if brought != fresh {
		t.Fatalf("%d messages brought of %d, from a mailbox with %d others", brought, fresh, many)
	}
	fmt.Fprintf(o.progress, "a mailbox with %d messages on both sides and %d more on one: %s\n", many, fresh, took.Round(time.Second))
	return figure.Part{
		Name: fmt.Sprintf("Recall of %d mailboxes at once between two Dovecots", recallAtOnce),
		Notes: []string{
			fmt.Sprintf("A round has %d new mailboxes with %d messages each (6 KB on average, with attachments, in eight folders), none of which is on the other side: listed, compared, brought with flags and dates, found again, journal fsynced. Then all of it once more, where nothing is to be done.", recallAtOnce, each),
			fmt.Sprintf("Memory: what the Go runtime has of the system, least before and most during a round, by difference. Two messages of %d MiB in one mailbox; then one with %d messages that both sides have, and %d that one side has, without a watermark. Ratio: to the bar.", size>>20, many, fresh),
		},
		Figures: []figure.Figure{
			figure.New("brought", "messages/s", rates...).EachAtLeast(200),
			figure.New("looked through again", "messages/s", again...),
			figure.New("memory", "MiB", peaks...).AtMost(200),
			figure.New("memory, large messages", "MiB", largest).AtMost(200),
			figure.New("memory, many messages", "MiB", most).AtMost(200),
			figure.New("time, many messages", "s", took.Seconds()),
		},
	}
}

// inbox writes a mailbox with the messages that make returns, one folder of them, until it says no.
func inbox(t peers.TB, d *peers.Dovecot, row routing.Row, make func(i int) (mailboxes.Message, bool)) {
	t.Helper()
	m := &mailboxes.Mailbox{Address: string(row.Addresses[0]), Folders: []mailboxes.Folder{{Name: mailboxes.Inbox}}}
	for i := 0; ; i++ {
		msg, ok := make(i)
		if !ok {
			break
		}
		m.Folders[0].Messages = append(m.Folders[0].Messages, msg)
	}
	if err := m.WriteMaildir(filepath.Join(d.Dir(), m.Address)); err != nil {
		t.Fatalf("%v", err)
	}
}

// recallAll brings mailboxes, and returns how long it took, how many messages there were, and
// the memory that it added, in MiB.
func recallAll(t peers.TB, e *recall.Engine, rows []routing.Row) (took time.Duration, messages int, peak float64) {
	t.Helper()
	runtime.GC()
	before := inUse()
	stop, watched := make(chan struct{}), make(chan uint64)
	go func() {
		var most uint64
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			most = max(most, inUse())
			select {
			case <-tick.C:
			case <-stop:
				watched <- most
				return
			}
		}
	}()
	begin := time.Now()
	var all sync.WaitGroup
	results, errs := make([]recall.Result, len(rows)), make([]error, len(rows))
	for i, row := range rows {
		all.Go(func() {
			results[i], errs[i] = e.Mailbox(t.Context(), recall.Job{Row: row, Direction: recall.Direction{From: "ox", To: "exchange", Side: mailstore.Target}})
		})
	}
	all.Wait()
	took = time.Since(begin)
	close(stop)
	most := <-watched
	for i, r := range results {
		if errs[i] != nil || !r.Done || len(r.NotBack) > 0 {
			t.Fatalf("recall: %+v, %v", r, errs[i])
		}
		messages += r.Messages
	}
	return took, messages, float64(most-min(most, before)) / (1 << 20)
}

// inUse is the memory that the Go runtime uses now.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func benchStore(t peers.TB, platform routing.PlatformID, d *peers.Dovecot) *mailstore.IMAP {
	t.Helper()
	s, err := mailstore.New(mailstore.Options{
		Platform: platform, Hosts: []string{d.IMAP}, Connections: recallAtOnce,
		Access: mailstore.Access{Mode: mailstore.ModeMaster, User: "admin", Password: "master"},
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// benchRow is the n-th mailbox.
func benchRow(t peers.TB, n int) routing.Row {
	t.Helper()
	address, err := routing.ParseAddress(fmt.Sprintf("user%d@example.org", n))
	if err != nil {
		t.Fatalf("%v", err)
	}
	id, err := routing.ParseMailboxID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return routing.Row{Mailbox: id, Kind: routing.KindUser, Addresses: []routing.Address{address}}
}
