package outbox

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailcutover/notice"
	"mailcutover/routing"
)

func open(t *testing.T, dir string, limit int) *Box {
	t.Helper()
	b, err := Open(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// addition is the n-th one of a test: an event of the table, a record, and how far it was followed.
func addition(n int) Addition {
	p := notice.Position{Term: 1, Revision: routing.Revision(n)}
	e := notice.NewTest("lab", "mx1", fmt.Sprint(n), "Anna", strings.Repeat("x", 2000), time.Unix(int64(n), 0))
	e.Position = p
	return Addition{
		Stream: Table, Known: &Known{Incarnation: "i", Position: p}, Events: []notice.Event{e},
		Records: []notice.Record{{Key: "agency/health", Facts: notice.Facts{"epoch": fmt.Sprint(n)}}},
	}
}

func put(t *testing.T, b *Box, a Addition) []Dropped {
	t.Helper()
	dropped, err := b.Put(a)
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

// revisions returns those of the events that a channel hasn't settled.
func revisions(t *testing.T, b *Box, channel string) (all []routing.Revision) {
	t.Helper()
	list, err := b.Next(channel, Table, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Damage != "" {
			all = append(all, 0)
			continue
		}
		all = append(all, e.Event.Position.Revision)
	}
	return all
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// TestOrderAndSettling: channels have all events in the order in which they came, each on its own; what all
// have settled goes, also over a restart.
func TestOrderAndSettling(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, 10)
	put(t, b, addition(1))
	if err := b.SetChannels([]string{"one", "two"}); err != nil {
		t.Fatal(err)
	}
	want(t, "a new channel begins with the present", revisions(t, b, "one"), []int{})
	for n := 2; n <= 5; n++ {
		put(t, b, addition(n))
	}
	list, err := b.Next("one", Table, 2)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	if err := b.Settle("one", Table, list[1].Number); err != nil {
		t.Fatal(err)
	}
	if err := b.Settle("one", Table, list[0].Number); err != nil { // late, and twice
		t.Fatal(err)
	}
	if err := b.SettleTo("two", notice.Position{Term: 1, Revision: 4}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		want(t, "one", revisions(t, b, "one"), []int{4, 5})
		want(t, "two", revisions(t, b, "two"), []int{5})
		want(t, "nobody", revisions(t, b, "nobody"), []int{})
		if after, err := b.After("one", Table, list[1].Number+1, 10); err != nil || len(after) != 1 {
			t.Errorf("behind the next one: %v, %v", after, err)
		}
		want(t, "events kept", keptEvents(t, b), 2)
		known, ok := b.Known()
		want(t, "known", fmt.Sprint(known.Revision, ok, b.Facts("agency/health")), "5 true map[epoch:5]")
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b = open(t, dir, 10)
	}
	if err := b.SetChannels(nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Known(); ok || b.Facts("agency/health") != nil || keptEvents(t, b) != 0 {
		t.Error("without channels something is still known")
	}
}

// keptEvents returns how many events of the table are kept.
func keptEvents(t *testing.T, b *Box) (n int) {
	t.Helper()
	if err := b.db.View(func(tx *bolt.Tx) error { n = tx.Bucket(bucketEvents[Table]).Stats().KeyN; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestLimit: the oldest go, and it is said whom they were for.
func TestLimit(t *testing.T) {
	b := open(t, t.TempDir(), 2)
	if err := b.SetChannels([]string{"one", "two"}); err != nil {
		t.Fatal(err)
	}
	want(t, "dropped", len(put(t, b, addition(1)))+len(put(t, b, addition(2))), 0)
	if err := b.SettleTo("two", notice.Position{Term: 1, Revision: 1}); err != nil {
		t.Fatal(err)
	}
	dropped := put(t, b, addition(3))
	if len(dropped) != 1 || dropped[0].Event.Position.Revision != 1 || fmt.Sprint(dropped[0].Channels) != "[one]" {
		t.Errorf("dropped %+v", dropped)
	}
	want(t, "kept", revisions(t, b, "one"), []int{2, 3})
}

// TestDamagedEntries: what can't be read keeps nothing else from being told, kept, settled or dropped.
func TestDamagedEntries(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, 3)
	if err := b.SetChannels([]string{"one", "two"}); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		put(t, b, addition(n))
	}
	spoil := func(bucket, key []byte) {
		t.Helper()
		if err := b.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put(key, []byte("{spoilt")) }); err != nil {
			t.Fatal(err)
		}
	}
	spoil(bucketEvents[Table], numberKey(2))
	want(t, "an event is damaged", revisions(t, b, "one"), []int{1, 0, 3})
	if err := b.SettleTo("two", notice.Position{Term: 1, Revision: 3}); err != nil {
		t.Fatal(err)
	}
	want(t, "settled past it", revisions(t, b, "two"), []int{})
	put(t, b, addition(4))
	if dropped := put(t, b, addition(5)); len(dropped) != 1 {
		t.Errorf("the damaged one was not dropped: %+v", dropped)
	}
	want(t, "behind it", revisions(t, b, "one"), []int{3, 4, 5})
	spoil(bucketSettled, []byte("two"))
	want(t, "what was settled is damaged: told once more", revisions(t, b, "two"), []int{3, 4, 5})
	spoil(bucketFacts, []byte("agency/health"))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, dir, 3)
	if _, ok := b.Known(); ok || len(b.Keys()) != 0 || b.Damage() == nil || !strings.Contains(b.Damage().Error(), "agency/health") {
		t.Errorf("damaged facts: %v, %v", b.Keys(), b.Damage())
	}
	want(t, "events", revisions(t, b, "one"), []int{3, 4, 5})
	put(t, b, addition(6))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if b = open(t, dir, 3); b.Damage() != nil {
		t.Errorf("damaged once more: %v", b.Damage())
	}
}

// TestCrashBetweenWrites opens the file as a crash within a Put leaves it: with any first part of the pages that it
// writes, in either order, and with a torn last one. Events, facts and how far the table was followed are
// those before it or those after it, and never a mixture.
func TestCrashBetweenWrites(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "outbox.db")
	b := open(t, dir, 100)
	if err := b.SetChannels([]string{"one"}); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 8; n++ {
		put(t, b, addition(n))
	}
	read := func() []byte {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	page := os.Getpagesize()
	torn := 0
	for n := 9; n <= 12; n++ {
		before := read()
		put(t, b, addition(n))
		after := read()
		before = append(before, make([]byte, max(0, len(after)-len(before)))...)
		var meta, data []int // pages that differ
		for at := 0; at < len(after); at += page {
			if !bytes.Equal(before[at:at+page], after[at:at+page]) {
				if at/page < 2 {
					meta = append(meta, at)
				} else {
					data = append(data, at)
				}
			}
		}
		if len(meta) != 1 || len(data) == 0 {
			t.Fatalf("a Put writes the pages %v and %v", meta, data)
		}
		state := func(what string, text []byte, expect int) {
			t.Helper()
			torn++
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "outbox.db"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			one := open(t, dir, 100)
			known, ok := one.Known()
			list := revisions(t, one, "one")
			if !ok || int(known.Revision) != expect || len(list) != expect || int(list[expect-1]) != expect || one.Facts("agency/health")["epoch"] != fmt.Sprint(expect) {
				t.Errorf("%s: followed to %d, %d events, facts %v; want %d", what, known.Revision, len(list), one.Facts("agency/health"), expect)
			}
			put(t, one, addition(expect+1))
			if err := one.Close(); err != nil {
				t.Error(err)
			}
		}
		for _, backwards := range []bool{false, true} {
			now := bytes.Clone(before)
			for i := range data {
				at := data[i]
				if backwards {
					at = data[len(data)-1-i]
				}
				copy(now[at:at+page/2], after[at:]) // half of it
				state("a torn page", now, n-1)
				copy(now[at:at+page], after[at:])
				state("before the last page", now, n-1)
			}
		}
		now := bytes.Clone(after)
		copy(now[meta[0]:meta[0]+page], before[meta[0]:])
		copy(now[meta[0]:meta[0]+56], after[meta[0]:]) // without the new checksum
		state("the last page is torn", now, n-1)
		state("all is written", after, n)
	}
	if torn < 20 {
		t.Errorf("%d states", torn)
	}
}
