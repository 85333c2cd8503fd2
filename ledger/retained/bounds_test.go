package retained

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/internal/seal"
	"mailcutover/mail"
	"mailcutover/routing"
)

// files returns the names of an agency's files.
func files(t *testing.T, s *Store, id routing.AgencyID) (names []string) {
	t.Helper()
	for _, name := range fileNames(t, s) {
		if strings.HasPrefix(name, string(id)+".") {
			names = append(names, name)
		}
	}
	return names
}

// Beyond the bounds the oldest go first: of the agency, then of all. What is gone is known, also
// after a start.
func TestBounds(t *testing.T) {
	var removed []Removal
	o := Options{
		Dir: filepath.Join(t.TempDir(), "retained"), AgencyBytes: 300_000, TotalBytes: 500_000, SegmentBytes: 40_000, Uncompressed: true,
		Removed: func(r Removal) { removed = append(removed, r) },
	}
	s := open(t, o)
	for range 100 {
		put(s, text(5000), to("health", "dora")...)
	}
	put(s, text(100_000), to("health", "dora")...)
	st := s.Agency("health")
	if st.Bytes > o.AgencyBytes || st.Bytes < o.AgencyBytes/2 {
		t.Errorf("%d bytes of an agency that may have %d", st.Bytes, o.AgencyBytes)
	}
	if st.Copies+st.Removed.Copies != 101 || st.Removed.Reason != ReasonAgencyBytes || !st.Removed.Last.Before(st.First) {
		t.Errorf("%d copies, %+v removed of 101", st.Copies, st.Removed)
	}
	if got := find(t, s, Query{Agency: "health"}); len(got) != st.Copies {
		t.Errorf("%d are found, the status says %d", len(got), st.Copies)
	}
	for range 80 {
		put(s, text(5000), to("tax", "erik")...)
	}
	all := s.Status()
	if all.Bytes > o.TotalBytes || all.Bytes < o.TotalBytes/2 {
		t.Errorf("%d bytes of %d", all.Bytes, o.TotalBytes)
	}
	if gone := s.Agency("health").Removed; gone.Reason != ReasonTotalBytes || !gone.Last.After(st.Removed.Last) {
		t.Errorf("removed of the agency with the oldest copies: %+v", gone)
	}
	var size int64
	for _, name := range fileNames(t, s) {
		info, err := os.Stat(filepath.Join(o.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if name != removalsName {
			size += info.Size()
		}
	}
	if size != all.Bytes {
		t.Errorf("the files have %d bytes, the status says %d", size, all.Bytes)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Removed = nil
	s = open(t, o)
	again := s.Status()
	if len(again.Agencies) != 2 || again.Agencies[0].Removed.Copies != all.Agencies[0].Removed.Copies || again.Copies != all.Copies {
		t.Errorf("after a start %+v, before %+v", again.Agencies, all.Agencies)
	}
	if got := s.Removals(); len(got) != len(removed) {
		t.Errorf("%d removals are written down, %d were told", len(got), len(removed))
	}
}

// A disk that is nearly full costs the oldest copies, and then the new ones: the spool needs
// what is left.
func TestRoom(t *testing.T) {
	var free atomic.Int64
	var now atomic.Int64
	now.Store(1_700_000_000)
	free.Store(50 << 30)
	s := open(t, Options{
		Space:        func() (int64, int64, error) { return free.Load(), 100 << 30, nil },
		Now:          func() time.Time { return time.Unix(now.Load(), 0) },
		SegmentBytes: 10_000, Uncompressed: true,
	})
	for range 10 {
		put(s, text(5000), to("health", "dora")...)
	}
	now.Add(2)
	free.Store(marginBytes - 1)
	put(s, text(5000), to("health", "dora")...)
	if st := s.Status(); st.Copies != 0 || st.Failed != 1 || !errors.Is(st.Err, errNoRoom) || st.Agencies[0].Removed.Reason != ReasonDisk {
		t.Errorf("on a disk without room: %+v", st)
	}
	now.Add(2)
	free.Store(marginBytes)
	put(s, text(5000), to("health", "dora")...)
	if st := s.Status(); st.Copies != 1 || st.Err != nil {
		t.Errorf("with room again: %+v", st)
	}
}

func TestMaxAge(t *testing.T) {
	var now atomic.Int64
	now.Store(1_700_000_000)
	s := open(t, Options{MaxAge: 48 * time.Hour, Now: func() time.Time { return time.Unix(now.Load(), 0) }})
	put(s, text(100), to("health", "dora")...)
	now.Add(int64((segmentAge + time.Hour).Seconds()))
	put(s, text(100), to("health", "dora")...)
	s.Upkeep()
	if st := s.Agency("health"); st.Copies != 2 || st.Segments != 2 {
		t.Errorf("%d copies in %d segments, want 2 in 2", st.Copies, st.Segments)
	}
	now.Add(int64((24 * time.Hour).Seconds()))
	s.Upkeep()
	if st := s.Agency("health"); st.Copies != 1 || st.Removed.Copies != 1 || st.Removed.Reason != ReasonAge {
		t.Errorf("%+v, want one copy left", st)
	}
}

// A segment that has no copy yet, because its first message is still passing, is neither too old nor
// the oldest.
func TestFirstMessageUnderWay(t *testing.T) {
	for name, push := range map[string]func(s *Store){
		"age": (*Store).Upkeep,
		"bound of all": func(s *Store) {
			for s.Agency("health").Removed.Copies == 0 && s.Agency("tax").Segments > 0 {
				put(s, text(5000), to("health", "dora")...)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Options{MaxAge: time.Hour, TotalBytes: 600_000, SegmentBytes: 40_000, Uncompressed: true})
			put(s, text(5000), to("health", "dora")...)
			in := s.Begin("tax")
			defer in.Discard()
			in.Write(text(200_000))
			s.Upkeep() // what was handed on is written
			push(s)
			in.Keep(&Message{Transaction: mail.NewTransactionID()}, to("tax", "erik"))
			if st := s.Agency("tax"); st.Copies != 1 || st.Failed != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// When an agency is finalised nothing of it is left but the record; others keep theirs.
func TestFinalise(t *testing.T) {
	for name, k := range map[string]*seal.Keys{"plain": nil, "sealed": keys(t)} {
		t.Run(name, func(t *testing.T) {
			var over atomic.Bool
			o := Options{Dir: filepath.Join(t.TempDir(), "retained"), Keys: k, WayBack: func(id routing.AgencyID) WayBack {
				if id == "health" && over.Load() {
					return WayBackOver
				}
				return WayBackOpen
			}}
			s := open(t, o)
			for _, n := range []int{100, 200_000} {
				put(s, text(n), append(to("health", "dora"), to("tax", "erik")...)...)
			}
			late := s.Begin("health", "tax")
			late.Write(text(100_000))
			over.Store(true)
			s.Upkeep()
			late.Keep(&Message{Transaction: find(t, s, Query{Agency: "tax"})[0].Transaction}, append(to("health", "dora"), to("tax", "erik")...))
			late.Discard()
			s.Upkeep()
			if left := files(t, s, "health"); len(left) != 0 {
				t.Errorf("%v are left", left)
			}
			st := s.Status()
			if len(st.Agencies) != 2 || st.Agencies[0].Copies != 0 || st.Agencies[0].Removed.Copies != 2 || st.Agencies[0].Removed.Reason != ReasonFinalised || st.Agencies[1].Copies != 3 || st.Failed != 0 {
				t.Errorf("status is %+v", st)
			}
			if got := find(t, s, Query{}); len(got) != 3 {
				t.Errorf("%d copies are found, want 3 of tax", len(got))
			}
			over.Store(false) // it is moved another time
			m := put(s, text(1000), to("health", "dora")...)
			if got := find(t, s, Query{Agency: "health"}); len(got) != 1 || got[0].Transaction != m.Transaction {
				t.Errorf("a new beginning has %v", got)
			}
		})
	}
}

// What was sealed opens as long as its key is among the keys, under whatever first key; and
// nothing of a message or an address stands on the disk.
func TestKeys(t *testing.T) {
	one, two := seal.NewKey("one"), seal.NewKey("two")
	dir := filepath.Join(t.TempDir(), "retained")
	body := append(text(1000), "a secret that stands nowhere"...)
	s := open(t, Options{Dir: dir, Keys: keys(t, one), Uncompressed: true})
	put(s, body, to("health", "dora")...)
	put(s, append(text(100_000), body...), to("health", "dora")...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range fileNames(t, s) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"stands nowhere", "quick brown", "dora", "elsewhere"} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s has %q", name, secret)
			}
		}
	}
	both := func(want int, lines ...string) {
		t.Helper()
		s := open(t, Options{Dir: dir, Keys: keys(t, lines...), Uncompressed: true})
		n := 0
		for c, err := range s.Find(t.Context(), Query{}) {
			if err != nil {
				if want > 0 || !errors.Is(err, ErrDamaged) {
					t.Errorf("with keys %d: %v", len(lines), err)
				}
				continue
			}
			read(t, s, &c)
			n++
		}
		if n != want {
			t.Errorf("%d copies are read, want %d", n, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	both(0, two)
	both(2, two, one) // seals the data key with the first one
	both(2, two)
	both(0, one)
	s = open(t, Options{Dir: dir, Keys: keys(t, one)})
	put(s, body, to("health", "dora")...) // with a data key of its own
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	both(3, one, two)
	// Whoever has the keys no more still removes the data keys for good: who has them reads nothing later.
	for _, k := range []*seal.Keys{keys(t, seal.NewKey("three")), nil} {
		s := open(t, Options{Dir: dir, Keys: k, Uncompressed: true})
		if _, err := s.Erase("health", ReasonFinalised); err != nil {
			t.Fatal(err)
		}
		if left := slices.DeleteFunc(fileNames(t, s), func(name string) bool { return name == removalsName }); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		put(s, body, to("health", "dora")...)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
