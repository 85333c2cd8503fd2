package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailcutover/internal/durable/memdisk"
)

func entry(i int) Entry {
	return Entry{
		Person: "Anna Berg", Token: "anna-laptop", Roles: []string{"operator"}, What: "lock-agency", Subject: fmt.Sprintf("agency a%d", i),
		Reason: "wave <3> & \u00fcber", Before: "open on exchange", After: "closed, locked", Epoch: fmt.Sprintf("1.%d", i),
	}
}

func open(t *testing.T, o Options) *Log {
	t.Helper()
	if o.Node == "" {
		o.Node = "mx1.example.org"
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// logged returns a log of n records in several files, its export and its heads.
func logged(t *testing.T, dir string, n int) (export []byte, heads []Head) {
	t.Helper()
	var l *Log
	for i := range n {
		if i%20 == 0 {
			l = open(t, Options{Dir: dir})
		}
		h, err := l.Append(entry(i))
		if err != nil {
			t.Fatal(err)
		}
		heads = append(heads, h)
		if i%20 == 19 || i == n-1 {
			var out bytes.Buffer
			if got, err := l.Export(&out); err != nil || got != h {
				t.Fatalf("export: %v, %v", got, err)
			}
			export = out.Bytes()
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return export, heads
}

func TestGood(t *testing.T) {
	dir := t.TempDir()
	export, heads := logged(t, dir, 50)
	for name, verify := range map[string]func(...Head) (Report, error){
		"export": func(h ...Head) (Report, error) { return Verify(bytes.NewReader(export), h...) },
		"folder": func(h ...Head) (Report, error) { return VerifyDir(nil, dir, nil, h...) },
	} {
		for _, given := range [][]Head{nil, heads[:1], heads[49:], heads, {{Node: "mx1.example.org"}}} {
			r, err := verify(given...)
			if err != nil || r.Head != heads[49] || len(r.Notes) != 0 {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		}
	}
	if got, err := ParseHead(heads[7].String()); err != nil || got != heads[7] {
		t.Errorf("head %s: %v, %v", heads[7], got, err)
	}
	l := open(t, Options{Dir: dir})
	defer l.Close()
	if l.Head() != heads[49] || l.Damage() != "" || l.Has(heads[3]) != nil {
		t.Errorf("%v, %q", l.Head(), l.Damage())
	}
}

// mutation is one way to damage an export; it returns the number of the first record that
// is not the one written, as Verify has to name it.
type mutation struct {
	name string
	do   func(r *rand.Rand, lines [][]byte) (out [][]byte, bad uint64)
}

// rewritten makes the lines from the i-th on, once changed, follow each other again.
func rewritten(lines [][]byte, i int, change func(k int, r *Record)) [][]byte {
	all := slices.Clone(lines)
	var before Hash
	for k := range lines {
		r, h, err := decode(bytes.TrimSuffix(lines[k], []byte("\n")))
		if err != nil {
			panic(err)
		}
		if k >= i {
			change(k, &r)
			r.Number, r.Previous = uint64(k+1), before
			if all[k], h, err = encode(&r); err != nil {
				panic(err)
			}
		}
		before = h
	}
	return all
}

func mutations() []mutation {
	return []mutation{
		{"a byte", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			i := r.IntN(len(l))
			l[i][r.IntN(len(l[i]))] ^= byte(1 + r.IntN(255))
			return l, uint64(i + 1)
		}},
		{"a byte inserted", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			i := r.IntN(len(l))
			at := r.IntN(len(l[i]))
			extra, end := byte(r.IntN(256)), at == len(l[i])-1
			l[i] = append(l[i][:at:at], append([]byte{extra}, l[i][at:]...)...)
			if end && extra == '\n' {
				return l, uint64(i + 2) // a line of its own
			}
			return l, uint64(i + 1)
		}},
		{"a byte removed", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			i := r.IntN(len(l))
			at := r.IntN(len(l[i]))
			l[i] = append(l[i][:at:at], l[i][at+1:]...)
			return l, uint64(i + 1)
		}},
		{"a record removed", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			i := r.IntN(len(l))
			return append(l[:i:i], l[i+1:]...), uint64(i + 1)
		}},
		{"two records swapped", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			i := r.IntN(len(l) - 1)
			j := i + 1 + r.IntN(len(l)-1-i)
			l[i], l[j] = l[j], l[i]
			return l, uint64(i + 1)
		}},
		{"a record twice", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			i := r.IntN(len(l))
			return append(l[:i+1:i+1], l[i:]...), uint64(i + 2)
		}},
		{"the end cut", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			i := r.IntN(len(l))
			cut := r.IntN(len(l[i]))
			return append(l[:i:i], l[i][:cut]), uint64(i + 1)
		}},
		{"the beginning cut", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			return l[1+r.IntN(len(l)-1):], 1
		}},
		{"one record made anew", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			i := r.IntN(len(l) - 1)
			l[i] = rewritten(l, i, func(_ int, r *Record) { r.Person = "Ben Roth" })[i]
			return l, uint64(i + 2) // which doesn't follow it any more
		}},
		{"the chain made anew", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			i := r.IntN(len(l))
			return rewritten(l, i, func(k int, r *Record) {
				if k == i {
					r.Reason = "another"
				}
			}), uint64(len(l))
		}},
		{"a record removed, the chain made anew", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			i := r.IntN(len(l))
			l = append(l[:i:i], l[i+1:]...)
			return rewritten(l, i, func(int, *Record) {}), uint64(len(l) + 1)
		}},
		{"a record added, the chain made anew", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			i := r.IntN(len(l) - 1)
			l = append(l[:i+1:i+1], l[i:]...)
			return rewritten(l, i, func(int, *Record) {}), uint64(len(l) - 1)
		}},
		{"another chain", func(r *rand.Rand, l [][]byte) ([][]byte, uint64) {
			return rewritten(l, 0, func(_ int, r *Record) { r.Chain = "ANOTHER" }), 1
		}},
	}
}

// Whatever is done to an exported log is found, and the first bad record is named.
func TestMutations(t *testing.T) {
	const total = 10_000
	export, heads := logged(t, t.TempDir(), 4)
	all := mutations()
	random := rand.New(rand.NewPCG(1, 2))
	for n := range total {
		m := all[n%len(all)]
		lines := bytes.SplitAfter(bytes.Clone(export), []byte("\n"))
		lines = lines[:len(lines)-1]
		for i := range lines {
			lines[i] = bytes.Clone(lines[i])
		}
		out, want := m.do(random, lines)
		text := bytes.Join(out, nil)
		if bytes.Equal(text, export) {
			continue // two equal bytes beside each other
		}
		_, err := Verify(bytes.NewReader(text), heads[3])
		bad, ok := errors.AsType[*BadRecord](err)
		if !ok {
			t.Fatalf("%d: %s in record %d: not found: %v", n, m.name, want, err)
		}
		if bad.Number != want {
			t.Errorf("%d: %s: record %d is named, want %d: %v", n, m.name, bad.Number, want, err)
		}
	}
}

// Damage to the files themselves is found as well: but for the very end, without a head.
func TestFolderMutations(t *testing.T) {
	dir := t.TempDir()
	_, heads := logged(t, dir, 50)
	names, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil || len(names) != 3 {
		t.Fatal(names, err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	for n := range 150 {
		name := names[random.IntN(len(names))]
		good, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(good)
		switch n % 3 {
		case 0:
			bad[random.IntN(len(bad))] ^= byte(1 + random.IntN(255))
		case 1:
			bad = bad[:random.IntN(len(bad))]
		case 2:
			bad = append(bad, good[random.IntN(len(good)):]...)
		}
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyDir(nil, dir, nil, heads[49])
		if _, ok := errors.AsType[*BadRecord](err); !ok && (n%3 != 2 || len(r.Notes) == 0) {
			t.Fatalf("%d: %s: %v", n, name, err)
		}
		if err := os.WriteFile(name, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(names[1]); err != nil {
		t.Fatal(err)
	}
	_, err = VerifyDir(nil, dir, nil)
	if bad, ok := errors.AsType[*BadRecord](err); !ok || bad.Number != 21 {
		t.Errorf("a file is gone: %v", err)
	}
}

// A damaged log goes on behind its last whole record, and stays recognisable as damaged.
func TestDamagedGoesOn(t *testing.T) {
	dir := t.TempDir()
	_, heads := logged(t, dir, 10)
	name := filepath.Join(dir, segmentName(1, 0))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, bytes.Replace(b, []byte("agency a4"), []byte("agency b4"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Dir: dir})
	defer l.Close()
	if l.Head() != heads[9] || !strings.Contains(l.Damage(), "audit record 5") {
		t.Errorf("%v, %q", l.Head(), l.Damage())
	}
	if h, err := l.Append(entry(10)); err != nil || h.Number != 11 {
		t.Error(h, err)
	}
	if _, err := l.Export(io.Discard); err == nil || !strings.Contains(err.Error(), "audit record 5") {
		t.Errorf("export: %v", err)
	}
}

// Whatever the disk does at whichever operation: what was acknowledged is there, in an
// unbroken chain, and what wasn't acknowledged never comes between.
func TestCrashes(t *testing.T) {
	const records = 6
	count := memdisk.New()
	write(t, count, records)
	for at := 1; at <= count.Operations()+1; at++ {
		for _, loss := range memdisk.Losses() {
			disk := memdisk.New()
			disk.CrashBefore(at)
			acked := write(t, disk, records)
			if !disk.Crashed() {
				disk.Crash()
			}
			disk = disk.Restart(loss)
			more := write(t, disk, 2)
			if len(more) != 2 {
				t.Fatalf("crash at %d, %s: %d of 2 records after it", at, loss, len(more))
			}
			after := disk.Restart(memdisk.LoseAll)
			r, err := VerifyDir(after, "/audit", nil, append(acked, more...)...)
			if err != nil || r.Heads != len(acked)+2 || r.Head != more[1] {
				t.Fatalf("crash at %d, %s: acknowledged %d: %+v, %v", at, loss, len(acked), r, err)
			}
		}
	}
}

// write opens the log and appends until the disk fails; it returns the acknowledged heads.
func write(t *testing.T, disk *memdisk.Disk, n int) (acked []Head) {
	t.Helper()
	l, err := Open(Options{Disk: disk, Dir: "/audit", Node: "mx1"})
	if err != nil {
		if !errors.Is(err, memdisk.ErrCrashed) {
			t.Fatal(err)
		}
		return nil
	}
	for i := range n {
		h, err := l.Append(entry(i))
		if err != nil {
			if !errors.Is(err, ErrUnwritten) {
				t.Fatal(err)
			}
			continue
		}
		acked = append(acked, h)
	}
	_ = l.Close()
	return acked
}

// A write that fails is an error, and the next record is written elsewhere.
func TestFailedWrites(t *testing.T) {
	for _, op := range []memdisk.Op{memdisk.OpCreate, memdisk.OpWrite, memdisk.OpSync, memdisk.OpSyncDir} {
		for _, before := range []int{0, 3} {
			disk := memdisk.New()
			l := open(t, Options{Disk: disk, Dir: "/audit"})
			var heads []Head
			for i := range before {
				h, err := l.Append(entry(i))
				if err != nil {
					t.Fatal(err)
				}
				heads = append(heads, h)
			}
			failed := 0
			disk.Fail(func(o memdisk.Op, _ string) error {
				if o != op {
					return nil
				}
				failed++
				return errors.New("input/output error")
			})
			for range 2 {
				if _, err := l.Append(entry(99)); err == nil && failed > 0 || err != nil && !errors.Is(err, ErrUnwritten) {
					t.Fatalf("%s after %d: %v", op, before, err)
				} else if err == nil {
					heads = append(heads, l.Head())
				}
			}
			disk.Fail(nil)
			h, err := l.Append(entry(100))
			if err != nil {
				t.Fatalf("%s after %d: %v", op, before, err)
			}
			for _, d := range []*memdisk.Disk{disk, disk.Restart(memdisk.LoseAll)} {
				if r, err := VerifyDir(d, "/audit", nil, append(heads, h)...); err != nil || r.Head != h {
					t.Errorf("%s after %d: %+v, %v", op, before, r, err)
				}
			}
		}
	}
}

func TestLongRecord(t *testing.T) {
	l := open(t, Options{Disk: memdisk.New(), Dir: "/audit"})
	if _, err := l.Append(Entry{Reason: strings.Repeat("x", maxLine)}); !errors.Is(err, ErrUnwritten) {
		t.Error(err)
	}
	if h, err := l.Append(entry(1)); err != nil || h.Number != 1 {
		t.Error(h, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Append(entry(2)); !errors.Is(err, ErrUnwritten) {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("0 {}\n"))
	f.Add([]byte(strings.Repeat("0", 64) + " {}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := Verify(bytes.NewReader(text)); err == nil && (r.Head.Number == 0) != (len(text) == 0) {
			t.Errorf("%+v", r)
		}
	})
}
