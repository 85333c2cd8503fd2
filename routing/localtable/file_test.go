package localtable

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// filled makes a table with some agencies and a mapping, and closes it.
func filled(t *testing.T) (path string, pos routing.Position, digest routing.Digest) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "table.db")
	tb, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if pos, err = tb.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if pos, err = tb.Change(t.Context(), add(t, pos, i)); err != nil {
			t.Fatal(err)
		}
	}
	rows := make([]routing.Row, 3000)
	for i := range rows {
		rows[i] = routing.Row{Mailbox: routing.MailboxID{1, 14: byte(i >> 8), 15: byte(i)}, Kind: routing.KindUser,
			Addresses: []routing.Address{routing.Address(fmt.Sprintf("user%d@health.example", i))}}
	}
	m, err := routing.NewMapping("health", rows)
	if err != nil {
		t.Fatal(err)
	}
	if err := tb.PutMapping(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := tb.Close(); err != nil {
		t.Fatal(err)
	}
	return path, pos, m.Digest()
}

func add(t *testing.T, pos routing.Position, i int) table.Change {
	t.Helper()
	a, err := routing.NewAgency(routing.AgencyID(fmt.Sprint("agency-", i)), "exchange", "ox")
	if err != nil {
		t.Fatal(err)
	}
	return table.Change{ID: fmt.Sprint("add ", i), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{a}}
}

func TestFileBelongsToOneProcess(t *testing.T) {
	path, _, _ := filled(t)
	// flock(1) holds the lock as another process would.
	cmd := exec.Command("flock", "--no-fork", path, "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		tb, err := Open(path, Options{LockTimeout: 100 * time.Millisecond})
		if err != nil {
			if want := fmt.Sprintf("%s: in use by process %d (", path, cmd.Process.Pid); !strings.Contains(err.Error(), want) {
				t.Errorf("%q doesn't say %q", err, want)
			}
			break
		}
		tb.Close()
		if time.Now().After(deadline) {
			t.Fatal("opened although locked")
		}
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	open(t, path, Options{LockTimeout: 5 * time.Second})
}

func TestFilesThatAreRefused(t *testing.T) {
	foreign := func(fill func(tx *bolt.Tx) error) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			db, err := bolt.Open(path, 0o600, nil)
			if err == nil {
				err = db.Update(fill)
			}
			if err == nil {
				err = db.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	rewrite := func(change func(b []byte) []byte) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, change(b), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		make func(t *testing.T, path string) // of a file that is a table
		want string
	}{
		"text":           {rewrite(func(b []byte) []byte { return bytes.Repeat([]byte("not a table\n"), 2000) }), "no table, or damaged"},
		"short":          {rewrite(func(b []byte) []byte { return b[:100] }), "table"},
		"half":           {rewrite(func(b []byte) []byte { return b[:len(b)/2/4096*4096] }), "damaged"},
		"two pages":      {rewrite(func(b []byte) []byte { return b[:8192] }), "damaged"},
		"zeroed records": {rewrite(func(b []byte) []byte { clear(b[8192:]); return b }), "damaged"},
		"another program's": {func(t *testing.T, path string) {
			os.Remove(path)
			foreign(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })(t, path)
		}, "something else"},
		"newer":            {foreign(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte("3")) }), `format is "3"`},
		"older":            {foreign(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte("1")) }), `format is "1"`},
		"without a bucket": {foreign(func(tx *bolt.Tx) error { return tx.DeleteBucket(bucketApplied) }), "no bucket applied"},
		"a directory": {func(t *testing.T, path string) {
			os.Remove(path)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "directory"},
	} {
		t.Run(name, func(t *testing.T) {
			path, _, _ := filled(t)
			tt.make(t, path)
			tb, err := Open(path, Options{})
			if err == nil {
				tb.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q doesn't say %q", err, tt.want)
			}
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "not", "there", "table.db"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
}

// A flipped bit anywhere in the file is noticed, or changes nothing that is read.
func TestFlippedBits(t *testing.T) {
	path, pos, digest := filled(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) (records string, err error) {
		tb, err := Open(path, Options{})
		if err != nil {
			return "", err
		}
		defer tb.Close()
		u, err := tb.Snapshot(t.Context())
		if err != nil {
			return "", err
		}
		if _, err := tb.Mapping(t.Context(), "health", digest); err != nil {
			return "", err
		}
		return fmt.Sprintf("%+v", u), nil
	}
	want, err := read(path)
	if err != nil || !strings.Contains(want, string(pos.Incarnation)) {
		t.Fatalf("%s, %v", want, err)
	}
	noticed := 0
	spoilt := filepath.Join(t.TempDir(), "spoilt.db")
	for at := 8192 + 100; at < len(good); at += len(good) / 200 {
		b := bytes.Clone(good)
		b[at] ^= 0x10
		if err := os.WriteFile(spoilt, b, 0o600); err != nil {
			t.Fatal(err)
		}
		switch got, err := read(spoilt); {
		case err != nil:
			noticed++
		case got != want:
			t.Errorf("byte %d: records are other ones without an error:\n%s\nwant\n%s", at, got, want)
		}
	}
	if noticed == 0 {
		t.Error("no flipped bit was noticed: the test flips none that matter")
	}
}

func TestDamagedRecordIsUnavailable(t *testing.T) {
	path, pos, _ := filled(t)
	tb := open(t, path, Options{})
	spoil := func(bucket, key []byte) {
		if err := tb.db.Update(func(tx *bolt.Tx) error {
			b := bytes.Clone(tx.Bucket(bucket).Get(key))
			b[len(b)-2] ^= 1
			return tx.Bucket(bucket).Put(key, b)
		}); err != nil {
			t.Fatal(err)
		}
	}
	spoil(bucketApplied, []byte("add 1"))
	if _, err := tb.Change(t.Context(), add(t, pos, 1)); !errors.Is(err, table.ErrUnavailable) {
		t.Errorf("Change with a damaged id: %v", err)
	}
	spoil(bucketAgency, []byte("agency-3"))
	if _, err := tb.Snapshot(t.Context()); !errors.Is(err, table.ErrUnavailable) || !strings.Contains(err.Error(), "agency-3") {
		t.Errorf("Snapshot: %v", err)
	}
	spoil(bucketLog, revisionKey(4))
	err := tb.Follow(t.Context(), routing.Position{Incarnation: pos.Incarnation, Term: pos.Term, Revision: 1}, time.Second, func(table.Entry) error { return nil }, func(time.Time, routing.Position) {})
	if !errors.Is(err, table.ErrUnavailable) {
		t.Errorf("Follow: %v", err)
	}
}

func TestOldIDsAreForgotten(t *testing.T) {
	tb := open(t, filepath.Join(t.TempDir(), "table.db"), Options{})
	tb.keptIDs = 5
	pos, err := tb.Init(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if _, err := tb.Change(t.Context(), add(t, pos, i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := 15; i < 20; i++ {
		if _, err := tb.Change(t.Context(), add(t, pos, i)); err != nil {
			t.Errorf("remembered id: %v", err)
		}
	}
	if _, err := tb.Change(t.Context(), add(t, pos, 14)); !errors.Is(err, table.ErrStale) {
		t.Errorf("forgotten id: %v, want %v", err, table.ErrStale)
	}
	if err := tb.db.View(func(tx *bolt.Tx) error {
		if a, b := tx.Bucket(bucketApplied).Stats().KeyN, tx.Bucket(bucketIDAt).Stats().KeyN; a != 5 || b != 5 {
			t.Errorf("%d ids and %d revisions are kept, want 5", a, b)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestKilledWriter kills a process while it writes: what it was told is there, and
// nothing is there by halves.
func TestKilledWriter(t *testing.T) {
	if path := os.Getenv("LOCALTABLE_TEST_WRITER"); path != "" {
		write(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "table.db")
	for range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWriter$")
		cmd.Env = append(os.Environ(), "LOCALTABLE_TEST_WRITER="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var told routing.Revision
		for range 15 {
			if _, err := fmt.Fscanln(out, &told); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for { // what it still managed to tell
			var more routing.Revision
			if _, err := fmt.Fscanln(out, &more); err != nil {
				break
			}
			told = more
		}
		cmd.Wait()
		tb, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		u, err := tb.Snapshot(t.Context())
		if err != nil || u.Position.Revision < told {
			t.Errorf("at revision %d after %d was acknowledged (%v)", u.Position.Revision, told, err)
		}
		if len(u.Agencies) != int(u.Position.Revision)-1 {
			t.Errorf("%d agencies at revision %d", len(u.Agencies), u.Position.Revision)
		}
		if err := tb.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// write adds agencies until it is killed, and prints each revision.
func write(t *testing.T, path string) {
	tb := open(t, path, Options{LockTimeout: 10 * time.Second})
	pos, err := tb.Init(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := int(pos.Revision); ; i++ {
		after, err := tb.Change(t.Context(), add(t, pos, i))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(after.Revision)
	}
}

func BenchmarkChange(b *testing.B) {
	tb, err := Open(filepath.Join(b.TempDir(), "table.db"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer tb.Close()
	pos, err := tb.Init(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	a, err := routing.NewAgency("health", "exchange", "ox")
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if pos, err = tb.Change(b.Context(), table.Change{ID: fmt.Sprint(i), Incarnation: pos.Incarnation, Term: pos.Term, Agencies: []routing.Agency{a}}); err != nil {
			b.Fatal(err)
		}
		a.Revision = pos.Revision
	}
}

func FuzzDecode(f *testing.F) {
	good, err := encode(applied{Revision: 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e entry
		if err := decode(b, &e); err == nil {
			again, err := encode(e)
			if err != nil {
				t.Fatal(err)
			}
			var same entry
			if err := decode(again, &same); err != nil {
				t.Errorf("%+v: %v", e, err)
			}
		}
	})
}
