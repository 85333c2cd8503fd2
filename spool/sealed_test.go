package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailcutover/internal/seal"
	"mailcutover/mail"
)

func sealKeys(t *testing.T, lines ...string) *seal.Keys {
	t.Helper()
	k, err := seal.ParseKeys(strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// bodyOf reads a message, and proves it.
func bodyOf(s *Store, id mail.TransactionID) ([]byte, error) {
	b, err := s.Open(id)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(b)
	if err == nil && b.Size() != int64(len(got)) {
		err = fmt.Errorf("Size is %d of %d bytes", b.Size(), len(got))
	}
	return got, errors.Join(err, b.Verify(), b.Close())
}

// Bodies of all sizes come back as they came, before and after a start and a compaction, beside
// ones from before there were keys; their text stands nowhere on the disk; and what is counted
// is nothing in the end.
func TestSealedBodies(t *testing.T) {
	line := seal.NewKey("one")
	o := Options{Dir: filepath.Join(t.TempDir(), "spool"), SegmentBytes: 300_000}
	bodies := map[mail.TransactionID][]byte{}
	fill := func(s *Store) {
		for _, n := range []int{0, 1, 1000, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200_000} {
			body := strings.Repeat("the quick brown fox\r\n", n/21+1)[:n]
			id, err := send(t, s, body, rcpt("anna", "health", StateHeld))
			if err != nil {
				t.Fatal(err)
			}
			bodies[id] = []byte(body)
		}
	}
	check := func(s *Store) {
		t.Helper()
		for id, want := range bodies {
			got, err := bodyOf(s, id)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("body of %d bytes: %d bytes, %v", len(want), len(got), err)
			}
			if m, err := s.Get(id); err != nil || m.Size != int64(len(want)) {
				t.Errorf("body of %d bytes: %+v, %v", len(want), m, err)
			}
		}
	}
	s := openStore(t, o)
	fill(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	plain := len(bodies)
	o.Keys = sealKeys(t, line)
	s = openStore(t, o)
	check(s)
	fill(s)
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Keys = sealKeys(t, seal.NewKey("two"), line)
	s = openStore(t, o)
	check(s)
	fill(s)
	if n := 0; plain > 0 { // the first ones go, and with them old segments
		for id := range bodies {
			if n++; n > 2*plain {
				break
			}
			if err := s.Set(Outcome{Transaction: id, State: StateDelivered}); err != nil {
				t.Fatal(err)
			}
			delete(bodies, id)
		}
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, o)
	check(s)
	for id := range bodies {
		if err := s.Set(Outcome{Transaction: id, State: StateDelivered}); err != nil {
			t.Fatal(err)
		}
	}
	if all, _ := s.Counts(); all.Bytes != 0 || all.Messages != 0 {
		t.Errorf("in an empty spool %d bytes and %d messages are counted", all.Bytes, all.Messages)
	}
	s.mu.Lock()
	if s.bytes != 0 || s.coming != 0 {
		t.Errorf("%d bytes and %d messages are reserved for nothing", s.bytes, s.coming)
	}
	s.mu.Unlock()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// What is sealed shows nothing of the body, is damaged when a byte of it changes, and without
// its key waits: it is neither damaged nor lost.
func TestSealedOnDisk(t *testing.T) {
	line := seal.NewKey("one")
	for _, size := range []int{2000, 200_000} {
		o := Options{Dir: filepath.Join(t.TempDir(), "spool"), Keys: sealKeys(t, line)}
		s := openStore(t, o)
		id, err := send(t, s, strings.Repeat("the quick brown fox\r\n", size/21), rcpt("anna", "health", StateHeld))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var file string // that has the body
		err = filepath.WalkDir(o.Dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte("quick brown")) {
				t.Errorf("%s has the text", path)
			}
			if bytes.Contains(b, []byte("mcseal1")) {
				file = path
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for name, keys := range map[string]*seal.Keys{"no keys": nil, "another key": sealKeys(t, seal.NewKey("two"))} {
			o.Keys = keys
			s := openStore(t, o)
			if _, err := bodyOf(s, id); !errors.Is(err, seal.ErrUnknownKey) || errors.Is(err, ErrDamaged) && name == "no keys" {
				t.Errorf("%s: %v, want ErrUnknownKey", name, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(b, []byte("mcseal1")) + seal.HeaderBytes + 100
		b[at] ^= 1
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		o.Keys = sealKeys(t, line)
		s = openStore(t, o)
		if _, err := bodyOf(s, id); !errors.Is(err, ErrDamaged) {
			t.Errorf("%d bytes, one of them changed: %v, want ErrDamaged", size, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A start without a key that held mail was sealed with, or without any, loses nothing: the error of
// each such message names its file and the key, other mail is delivered, compaction moves what it can't
// read, and with the key back all is there.
func TestAMissingKey(t *testing.T) {
	one, two := seal.NewKey("one"), seal.NewKey("two")
	o := Options{Dir: filepath.Join(t.TempDir(), "spool"), SegmentBytes: 100_000}
	bodies := map[mail.TransactionID][]byte{}
	sealedBy := map[mail.TransactionID]string{}
	fill := func(key string, lines ...string) {
		o.Keys = sealKeys(t, lines...)
		s := openStore(t, o)
		for i := range 30 {
			body := strings.Repeat(fmt.Sprintf("%s %d\r\n", key, i), 100+i*i*10)
			id, err := send(t, s, body, rcpt("anna", "health", StateHeld))
			if err != nil {
				t.Fatal(err)
			}
			bodies[id], sealedBy[id] = []byte(body), key
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	fill("one", one)
	fill("two", two, one)
	for _, keys := range []*seal.Keys{nil, sealKeys(t, two)} {
		o.Keys = keys
		s := openStore(t, o)
		delivered := 0
		for id, want := range bodies {
			got, err := bodyOf(s, id)
			key := sealedBy[id]
			if key == "two" && keys != nil {
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("body whose key is there: %v", err)
				}
				if delivered++; delivered <= 20 {
					if err := s.Set(Outcome{Transaction: id, State: StateDelivered}); err != nil {
						t.Fatal(err)
					}
					delete(bodies, id)
				}
				continue
			}
			if !errors.Is(err, seal.ErrUnknownKey) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), o.Dir) {
				t.Errorf("without key %s: %v; want ErrUnknownKey with the name of the key and the file", key, err)
			}
		}
		if all, _ := s.Counts(); all.Messages != len(bodies) {
			t.Errorf("%d messages are counted of %d", all.Messages, len(bodies))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	o.Keys = sealKeys(t, two, one)
	s := openStore(t, o)
	for id, want := range bodies {
		if got, err := bodyOf(s, id); err != nil || !bytes.Equal(got, want) {
			t.Errorf("with its key back: %d bytes of %d, %v", len(got), len(want), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
