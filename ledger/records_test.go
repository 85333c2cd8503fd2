package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
	"mailcutover/routing"
)

// openOn opens a ledger without its goroutine, on a disk in memory.
func openOn(t testing.TB, o Options) *Ledger {
	t.Helper()
	l, err := open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// deliver lets one message through.
func deliver(t testing.TB, l *Ledger, i *Intent, answers ...Answer) {
	t.Helper()
	ticket, err := l.Intend(i)
	if err != nil {
		t.Fatal(err)
	}
	l.Outcome(ticket, answers...)
}

var when = time.Date(2026, 3, 1, 9, 30, 0, 123000, time.UTC)

// What goes in comes out, in a segment that is written and in one that is indexed.
func TestRecordsComeBack(t *testing.T) {
	many := Intent{Time: when, Transaction: mail.NewTransactionID(), Platform: "ox", Host: "ox1:24", From: "a@b.example", MessageID: "x@y.example", Size: 7}
	var answers []Answer
	for n := range 300 {
		r := Recipient{Address: routing.Address(fmt.Sprintf("rcpt-%d@health.example", n)), Agency: "health", Mailbox: routing.MailboxID{byte(n), 1}, Epoch: routing.Epoch{Term: 1, Number: uint32(n)}, Mapping: routing.Digest{byte(n % 3)}}
		many.Recipients = append(many.Recipients, r)
		answers = append(answers, Answer{Result(2 + n%3), 250 + n%2*200, fmt.Sprintf("2.0.0 number %d", n)})
	}
	ok := []Answer{{ResultDelivered, 250, "2.0.0 OK"}}
	tests := map[string]struct {
		in   Intent
		ans  []Answer
		want func(i *Intent, a []Answer)
	}{
		"many recipients": {in: many, ans: answers},
		"nothing but a time": {
			in: Intent{Time: when}, ans: ok,
		},
		"fixed address, null sender": {
			in:  Intent{Time: when, Transaction: mail.NewTransactionID(), Platform: "exchange", Recipients: []Recipient{{Address: "all@health.example"}}},
			ans: []Answer{{ResultRefused, 554, "5.7.1 no"}},
		},
		"strange addresses": {
			in:  Intent{Time: when, Transaction: "not one of ours", From: `"a b"@`, MessageID: "no-at-sign", Recipients: []Recipient{{Address: "postmaster"}, {Address: "@"}, {Address: "a@b@c"}, {Address: "ü@grün.example"}}},
			ans: ok,
		},
		"digest and a time before the segment": {
			in: Intent{Time: when.AddDate(-9, 0, 0), Transaction: mail.NewTransactionID(), Digest: 1<<63 | 9, Size: 1 << 40}, ans: ok,
		},
		"a hash that is none": {
			in: Intent{Time: when, Transaction: mail.NewTransactionID(), From: "#00112233445566778899AABBCCDDEEFF"}, ans: ok,
		},
		"long fields are cut": {
			in: Intent{
				Time: when, Transaction: mail.NewTransactionID(), Host: strings.Repeat("h", 100), From: strings.Repeat("ä", 200) + "@x", MessageID: "<" + strings.Repeat("m", 300) + ">",
				Recipients: []Recipient{{Address: "a@b.example", Agency: "health"}},
			},
			ans: []Answer{{ResultRefused, 450, "4.2.2 " + strings.Repeat("ü", 100)}},
			want: func(i *Intent, a []Answer) {
				i.Host = strings.Repeat("h", 61) + "…"
				i.From = strings.Repeat("ä", 125) + "…"
				i.MessageID = strings.Repeat("m", 197) + "…"
				a[0].Text = "4.2.2 " + strings.Repeat("ü", 35) + "…"
			},
		},
		"replies are one printable line": {
			in: Intent{Time: when, Transaction: mail.NewTransactionID()}, ans: []Answer{{ResultRefused, 550, "a\tb\x00\xff\r\nsecond line"}},
			want: func(_ *Intent, a []Answer) { a[0].Text = "a b ?" },
		},
		"echoes are shortened": {
			in:  Intent{Time: when, Transaction: mail.NewTransactionID(), MessageID: "<12345678@x.y.example>", Recipients: []Recipient{{Address: "a@b.example", Agency: "c"}}},
			ans: []Answer{{ResultDelivered, 250, "2.6.0 <12345678@x.y.example> [InternalId=1] Queued"}},
			want: func(i *Intent, a []Answer) {
				i.MessageID = "12345678@x.y.example"
				a[0].Text = "2.6.0 <=> [InternalId=1] Queued"
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			disk := memdisk.New()
			l := openOn(t, options(disk, "1"))
			deliver(t, l, &test.in, test.ans...)
			want := Record{Intent: test.in, Answers: slices.Clone(test.ans)}
			if test.want != nil {
				test.want(&want.Intent, want.Answers)
			}
			want.Time = want.Time.Local()
			for range 2 {
				got := collect(t, l, Query{Transaction: test.in.Transaction, MessageID: test.in.MessageID, From: test.in.From})
				if len(got) != 1 {
					t.Fatalf("found %+v", got)
				}
				if got[0].Answered.IsZero() {
					t.Error("not answered")
				}
				got[0].Answered = time.Time{}
				if !reflect.DeepEqual(got[0], want) {
					t.Errorf("got  %+v\nwant %+v", got[0], want)
				}
				if err := l.finish(); err != nil {
					t.Fatal(err)
				}
				l = openOn(t, options(disk, "2"))
				l.indexOne()
			}
		})
	}
}

func TestIntentHasBounds(t *testing.T) {
	l := openOn(t, options(memdisk.New(), "1"))
	_, err := l.Intend(&Intent{Recipients: make([]Recipient, MaxRecipients+1)})
	if !errors.Is(err, ErrTooManyRecipients) {
		t.Error(err)
	}
	big := &Intent{Transaction: mail.NewTransactionID(), Recipients: make([]Recipient, MaxRecipients)}
	for n := range big.Recipients {
		big.Recipients[n] = Recipient{Address: routing.Address(fmt.Sprintf("%0240d@%d.example", n, n)), Agency: "health"}
	}
	deliver(t, l, big, Answer{Result: ResultDelivered})
	if got := collect(t, l, Query{Recipient: string(big.Recipients[9999].Address)}); len(got) != 1 || len(got[0].Recipients) != MaxRecipients {
		t.Errorf("%d found", len(got))
	}
	if err := l.finish(); err != nil {
		t.Fatal(err)
	}
}

func TestClosedLedgerTakesNoIntent(t *testing.T) {
	l, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ticket, err := l.Intend(newTraffic(1).intent())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Intend(newTraffic(1).intent()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	l.Outcome(ticket, Answer{Result: ResultDelivered})
	l.Outcome(Ticket{}, Answer{Result: ResultDelivered})
}

// A ticket is good for one outcome, also after its entry serves another intent.
func TestTicketIsGoodOnce(t *testing.T) {
	l := openOn(t, options(memdisk.New(), "1"))
	tr := newTraffic(1)
	a, b := tr.intent(), tr.intent()
	ticket, err := l.Intend(a)
	if err != nil {
		t.Fatal(err)
	}
	l.Outcome(ticket, Answer{Result: ResultDelivered})
	if _, err := l.Intend(b); err != nil {
		t.Fatal(err)
	}
	l.Outcome(ticket, Answer{Result: ResultRefused})
	for id, want := range map[mail.TransactionID]Result{a.Transaction: ResultDelivered, b.Transaction: ResultPending} {
		if got := collect(t, l, Query{Transaction: id}); len(got) != 1 || got[0].Answer(0).Result != want {
			t.Errorf("%+v, want %s", got, want)
		}
	}
	if c := l.Status().Counts; c != (Counts{Delivered: 1}) {
		t.Errorf("%+v", c)
	}
}

// With a key no address can be read in the files, and each is found by who asks for it,
// also in what was written before there was a key.
func TestHashedAddresses(t *testing.T) {
	disk := memdisk.New()
	l := openOn(t, options(disk, "1"))
	plain := &Intent{Transaction: mail.NewTransactionID(), From: "Anna@Sender.example", Recipients: []Recipient{{Address: "bert@health.example", Agency: "health"}}}
	deliver(t, l, plain, Answer{ResultDelivered, 250, "OK"})
	if err := l.finish(); err != nil {
		t.Fatal(err)
	}
	old := disk.Files()
	o := options(disk, "1")
	o.HashKey = []byte("a key")
	l = openOn(t, o)
	hashed := *plain
	hashed.Transaction = mail.NewTransactionID()
	deliver(t, l, &hashed, Answer{ResultRefused, 550, "5.1.1 <bert@ox.internal>: bert@health.example unknown"})
	left := hashed
	left.Transaction = mail.NewTransactionID()
	if _, err := l.Intend(&left); err != nil { // is carried, still hashed
		t.Fatal(err)
	}
	for range 2 {
		for _, q := range []Query{{From: "anna@sender.example"}, {From: "ANNA@sender.example"}, {Recipient: "bert@health.example"}} {
			got := collect(t, l, q)
			if len(got) != 3 {
				t.Fatalf("%+v: %+v", q, got)
			}
			for _, r := range got {
				if r.Transaction != plain.Transaction && (r.From[0] != '#' || r.Recipients[0].Address[0] != '#' || strings.Contains(r.Answer(0).Text, "bert")) {
					t.Errorf("%+v", r)
				}
				if n := len(collect(t, l, Query{From: r.From})); r.From[0] == '#' && n != 2 {
					t.Errorf("%d found by the hash", n)
				}
			}
		}
		if err := l.finish(); err != nil {
			t.Fatal(err)
		}
		l = openOn(t, o)
		l.indexOne()
		l.indexOne()
	}
	for path, b := range disk.Files() {
		if old[path] != nil || strings.HasSuffix(path, "00000001.idx") {
			continue
		}
		for _, word := range []string{"anna", "Anna", "bert", "sender.example", "ox.internal"} {
			if bytes.Contains(b, []byte(word)) {
				t.Errorf("%s has %q", path, word)
			}
		}
	}
}

// Segments go by age and by the size of the whole, oldest first, each with a report; the
// one that is written stays.
func TestRetention(t *testing.T) {
	for _, reason := range []string{"age", "size"} {
		t.Run(reason, func(t *testing.T) {
			disk := memdisk.New()
			now := when
			var removed []Removal
			o := options(disk, "1")
			o.Now = func() time.Time { return now }
			o.Removed = func(r Removal) { removed = append(removed, r) }
			if reason == "age" {
				o.MaxAge = 24 * time.Hour
			} else {
				o.MaxBytes = 20_000
			}
			l := openOn(t, o)
			tr := newTraffic(1)
			var p pace
			var ids []mail.TransactionID
			for range 200 {
				i := tr.intent()
				i.Time = time.Time{}
				deliver(t, l, i, tr.answer(i))
				ids = append(ids, i.Transaction)
				now = now.Add(30 * time.Minute)
				l.tick(&p)
			}
			for range 5 {
				l.tick(&p)
			}
			gone := uint64(0)
			for n, r := range removed {
				if r.Reason != reason || r.Number != uint64(n+1) || r.Intents == 0 || r.Bytes == 0 || r.First.IsZero() || !r.Last.After(r.First) {
					t.Errorf("%+v", r)
				}
				gone += r.Intents
			}
			left := collect(t, l, Query{})
			// An intent that was carried may be counted in the segment before its own.
			if extra := gone + uint64(len(left)) - 200; len(removed) < 5 || extra > 1 {
				t.Errorf("%d removed with %d intents, %d left", len(removed), gone, len(left))
			}
			for n, r := range left {
				if r.Transaction != ids[199-n] {
					t.Errorf("%d: %s, want %s", n, r.Transaction, ids[199-n])
				}
			}
			s := l.Status()
			switch reason {
			case "age":
				if oldest := left[len(left)-1].Time; now.Sub(oldest) > 40*time.Hour || now.Sub(oldest) < 20*time.Hour {
					t.Errorf("oldest is %s old", now.Sub(oldest))
				}
			default:
				if s.Bytes > o.MaxBytes+4000 || s.Bytes < o.MaxBytes/2 {
					t.Errorf("%d bytes", s.Bytes)
				}
			}
			if files := disk.Files(); len(files) != 2*len(s.Segments)+1 {
				t.Errorf("%d files, %d segments", len(files), len(s.Segments))
			}
		})
	}
}

// What is too old goes though no mail comes any more.
func TestRetentionWithoutMail(t *testing.T) {
	now := when
	o := options(memdisk.New(), "1")
	o.Now = func() time.Time { return now }
	o.SegmentAge, o.MaxAge = time.Hour, 24*time.Hour
	l := openOn(t, o)
	deliver(t, l, &Intent{Transaction: mail.NewTransactionID()}, Answer{Result: ResultDelivered})
	for _, left := range []int{1, 1, 0} {
		for range 3 {
			l.tick(&pace{})
		}
		if n := len(collect(t, l, Query{})); n != left {
			t.Errorf("%d records after %s", n, now.Sub(when))
		}
		now = now.Add(13 * time.Hour)
	}
}

// A segment whose index can't be written is searched as a whole, and gets it later.
func TestIndexCannotBeWritten(t *testing.T) {
	disk := memdisk.New()
	now := when
	o := options(disk, "1")
	o.Now = func() time.Time { return now }
	l := openOn(t, o)
	i := newTraffic(1).intent()
	deliver(t, l, i, Answer{Result: ResultDelivered})
	if err := l.finish(); err != nil {
		t.Fatal(err)
	}
	l = openOn(t, o)
	disk.Fail(func(op memdisk.Op, path string) error {
		if strings.Contains(path, ".idx") {
			return syscall.ENOSPC
		}
		return nil
	})
	for _, indexed := range []bool{false, false, true} {
		l.indexOne()
		if got := l.Status().Segments[0].IndexBytes > 0; got != indexed {
			t.Errorf("indexed %t, want %t", got, indexed)
		}
		if n := len(collect(t, l, Query{Transaction: i.Transaction})); n != 1 {
			t.Errorf("%d found", n)
		}
		if now = now.Add(indexAgain / 2); now.Sub(when) >= indexAgain {
			disk.Fail(nil)
		}
	}
}

// Two legs of one transaction to one platform are two intents, also when their times are
// the same.
func TestLegsAreToldApart(t *testing.T) {
	disk := memdisk.New()
	l := openOn(t, options(disk, "1"))
	i := Intent{Time: when, Transaction: mail.NewTransactionID(), Platform: "ox"}
	for _, to := range []routing.Address{"a@b.example", "c@b.example"} {
		i.Recipients = []Recipient{{Address: to}}
		if _, err := l.Intend(&i); err != nil {
			t.Fatal(err)
		}
	}
	l = openOn(t, options(disk.Restart(memdisk.LoseNothing), "1"))
	if n, m := len(l.InDoubt()), len(collect(t, l, Query{})); n != 2 || m != 2 {
		t.Errorf("%d in doubt, %d found", n, m)
	}
}

// Wherever the file of a killed process ends, what is whole is there and the start knows
// it; a name that isn't a segment's stays untouched.
func TestTornTail(t *testing.T) {
	disk := memdisk.New()
	o := options(disk, "1")
	o.SegmentBytes = 1 << 20
	l := openOn(t, o)
	newCustody().deliver(l, 20, 1)
	whole, err := l.load(1)
	if err != nil {
		t.Fatal(err)
	}
	ends := map[int]int{} // end of an intent's record: how many intents there are by then
	n := 0
	whole.each(func(at int64, k kind, payload string) bool {
		if k == kindIntent {
			n++
			ends[int(at)+frameHead+len(payload)] = n
		}
		return true
	})
	n = 0
	for i := range 2 * len(whole.data) {
		length, file := i/2, whole.data[:i/2]
		if i%2 == 1 { // with room behind it, as after a kill
			if whole.data[length] == 0 {
				continue // the byte is there, as it were
			}
			file = append(slices.Clone(file), make([]byte, 100)...)
		}
		s := &scanned{file: file}
		if err := s.start(); err != nil {
			if length >= whole.first || !errors.Is(err, errEmpty) {
				t.Fatalf("%d bytes: %v", length, err)
			}
			continue
		}
		n = max(n, ends[length])
		f := s.survey(map[identity]*entry{})
		seen := 0
		s.each(func(_ int64, k kind, _ string) bool {
			if k == kindIntent {
				seen++
			}
			return true
		})
		if f.holes || seen != n {
			t.Fatalf("%d bytes: %d intents of %d, holes %t", length, seen, n, f.holes)
		}
	}
	if n == 0 {
		t.Error("no intents")
	}
}

// Files that can't be used are set aside, and the ledger starts.
func TestUnreadableFilesAreSetAside(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir, Boot: "1"})
	if err != nil {
		t.Fatal(err)
	}
	deliver(t, l, newTraffic(1).intent(), Answer{Result: ResultDelivered})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"00000002.log": "something else entirely", "00000002.idx": "not an index", "00000001.idx": "nor this", "notes.txt": "mine"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err = Open(Options{Dir: dir, Boot: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if aside := l.Status().Aside; len(aside) != 1 || !strings.HasPrefix(aside[0], "00000002.log.aside-") || !unknown(l) {
		t.Errorf("aside %q, unknown %t", aside, unknown(l))
	}
	if n := len(collect(t, l, Query{})); n != 1 {
		t.Errorf("%d records", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "notes.txt")); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}

// Doubt ends when nothing can arrive any more; until then every start reports it.
func TestDoubtEnds(t *testing.T) {
	disk := memdisk.New()
	now := when
	o := options(disk, "1")
	o.Now = func() time.Time { return now }
	l := openOn(t, o)
	tr := newTraffic(1)
	lost, answered := tr.intent(), tr.intent()
	if _, err := l.Intend(lost); err != nil {
		t.Fatal(err)
	}
	deliver(t, l, answered, Answer{Result: ResultInDoubt})
	o.Boot = "2" // and power was cut, after an fsync
	l.tick(&pace{})
	start := func() {
		t.Helper()
		disk = disk.Restart(memdisk.LoseAll)
		o.Disk = disk
		l = openOn(t, o)
		l.tick(&pace{}) // the next start is after a power cut, too
	}
	for range 3 {
		now = now.Add(59 * time.Minute)
		start()
		if n := len(l.InDoubt()); n != 2 || !unknown(l) {
			t.Errorf("%d in doubt, unknown %t", n, unknown(l))
		}
	}
	now = now.Add(time.Hour)
	l.tick(&pace{})
	start()
	if n := len(l.InDoubt()); n != 0 || unknown(l) {
		t.Errorf("%d in doubt, unknown %t", n, unknown(l))
	}
	for _, i := range []*Intent{lost, answered} {
		if got := collect(t, l, Query{Transaction: i.Transaction}); len(got) != 1 || got[0].Answer(0).Result != ResultInDoubt || got[0].Answered.IsZero() {
			t.Errorf("%+v", got)
		}
	}
}

func TestFindStops(t *testing.T) {
	l := openOn(t, options(memdisk.New(), "1"))
	newCustody().deliver(l, 30, 1)
	for range l.Find(t.Context(), Query{}) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var err error
	for _, err = range l.Find(ctx, Query{}) {
	}
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestBootID(t *testing.T) {
	dir := t.TempDir()
	if a, b := BootID(dir), BootID(filepath.Join(dir, "not", "there")); a != b || a == "" && runtime.GOOS == "linux" || strings.TrimSpace(a) != a {
		t.Errorf("%q, %q", a, b)
	}
}

func FuzzSegment(f *testing.F) {
	l := openOn(f, options(memdisk.New(), "1"))
	newCustody().deliver(l, 4, 1)
	s, err := l.load(1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.data[s.first:], uint16(3))
	f.Add([]byte{frameSync, 3, 0, 0, 0}, uint16(0))
	f.Fuzz(func(t *testing.T, records []byte, skip uint16) {
		// Behind a good header, each record with its CRC put right, so that what is in it is read.
		h := header{number: 1, salt: 5, boot: "1", carried: uint64(skip % 3)}
		data := h.append(nil)
		for rest := records; len(rest) > 2; {
			n := min(int(rest[1]), len(rest)-2)
			data = appendFrame(data, h.salt, kind(rest[0]), rest[2:2+n])
			rest = rest[2+n:]
		}
		for _, data := range [][]byte{data, records, append(data[:len(data):len(data)], records...)} {
			s := &scanned{file: data}
			if s.start() != nil {
				continue
			}
			s.survey(map[identity]*entry{})
			s.carriesAll()
			_, b := buildIndex(s)
			x, err := readIndex(bytes.NewReader(b), s.number)
			if err != nil {
				t.Fatalf("own index: %v", err)
			}
			q := (&Ledger{}).search(Query{From: "<>"})
			s.scan(q)
			for _, h := range q.hashes {
				if _, err := x.lookup(bytes.NewReader(b), h); err != nil {
					t.Fatalf("own index: %v", err)
				}
			}
		}
		if x, err := readIndex(bytes.NewReader(records), 1); err == nil {
			x.lookup(bytes.NewReader(records), 7)
		}
	})
}
