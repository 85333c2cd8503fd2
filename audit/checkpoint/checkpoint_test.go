package checkpoint

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mailcutover/audit"
	"mailcutover/internal/alarm"
)

func newKey(t *testing.T, before *Key) *Key {
	t.Helper()
	k, err := NewKey(before)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// node is a node's log with its keeper.
type node struct {
	t      *testing.T
	log    *audit.Log
	book   *Book
	path   string
	keeper *Keeper
	key    atomic.Pointer[Key]
	alarms *alarm.Set
}

func newNode(t *testing.T, name, dir string) *node {
	t.Helper()
	log, err := audit.Open(audit.Options{Dir: filepath.Join(dir, "audit"), Node: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	n := &node{t: t, log: log, path: filepath.Join(dir, "checkpoints"), alarms: alarm.NewSet(nil)}
	if n.book, err = OpenBook(n.path); err != nil {
		t.Fatal(err)
	}
	n.key.Store(newKey(t, nil))
	n.keeper = NewKeeper(Options{Log: log, Book: n.book, Alarms: n.alarms, Settings: func() Settings {
		return Settings{Key: n.key.Load(), Records: 10, Every: time.Hour}
	}})
	return n
}

func (n *node) write(records int) {
	n.t.Helper()
	for range records {
		if _, err := n.log.Append(audit.Entry{Person: "anna", What: "lock-agency", Subject: "agency health", Reason: fmt.Sprint("record ", n.log.Head().Number)}); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) sign() Checkpoint {
	n.t.Helper()
	c, err := n.keeper.Make(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

func (n *node) export() []byte {
	n.t.Helper()
	var out bytes.Buffer
	if _, err := n.log.Export(&out); err != nil {
		n.t.Fatal(err)
	}
	return out.Bytes()
}

func (n *node) evidence() Evidence {
	n.t.Helper()
	text, err := os.ReadFile(n.path)
	if err != nil {
		n.t.Fatal(err)
	}
	all, err := Read(bytes.NewReader(text))
	if err != nil {
		n.t.Fatal(err)
	}
	return Evidence{Keys: []ed25519.PublicKey{n.key.Load().Public()}, Checkpoints: all}
}

// held holds a text against evidence.
func held(e Evidence, text []byte) (Result, error) {
	return Verify(e, func(heads ...audit.Head) (audit.Report, error) { return audit.Verify(bytes.NewReader(text), heads...) })
}

// signedLog is a log of 40 records with checkpoints at 10, 20 and 30.
func signedLog(t *testing.T) *node {
	n := newNode(t, "mx1.example", t.TempDir())
	for range 3 {
		n.write(10)
		n.sign()
	}
	n.write(10)
	return n
}

// rewritten returns a log in which a record says something else and all that follow are made anew, as
// somebody who knows the format would do it.
func rewritten(t *testing.T, text []byte, number int, change func(map[string]any)) []byte {
	t.Helper()
	var out bytes.Buffer
	previous := ""
	for i, line := range bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")) {
		_, body, _ := bytes.Cut(line, []byte(" "))
		if i+1 >= number {
			var r map[string]any
			if err := json.Unmarshal(body, &r); err != nil {
				t.Fatal(err)
			}
			if i+1 == number {
				change(r)
			} else {
				r["previous"] = previous
			}
			var err error
			if body, err = json.Marshal(r); err != nil {
				t.Fatal(err)
			}
		}
		sum := sha256.Sum256(body)
		previous = fmt.Sprintf("%x", sum)
		fmt.Fprintf(&out, "%s %s\n", previous, body)
	}
	return out.Bytes()
}

func TestVerify(t *testing.T) {
	t.Parallel()
	n := signedLog(t)
	text := n.export()
	r, err := held(n.evidence(), text)
	if err != nil || r.Checkpoints != 3 || r.Record != 30 || r.Head.Number != 40 || len(r.Keys) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	for name, c := range map[string]struct {
		text             []byte
		from, to, record uint64
	}{
		"a record between two checkpoints was written anew": {rewritten(t, text, 14, func(r map[string]any) { r["person"] = "bert" }), 11, 20, 20},
		"the record that was signed":                        {rewritten(t, text, 20, func(r map[string]any) { r["person"] = "bert" }), 11, 20, 20},
		"the one behind it":                                 {rewritten(t, text, 21, func(r map[string]any) { r["person"] = "bert" }), 21, 30, 30},
		"all of them":                                       {rewritten(t, text, 1, func(r map[string]any) { r["person"] = "bert" }), 1, 10, 10},
		"the end was cut":                                   {lines(text, 24), 21, 30, 25},
		"nearly all was cut":                                {lines(text, 1), 1, 30, 2},
		"all was cut":                                       {nil, 1, 30, 1},
	} {
		_, err := held(n.evidence(), c.text)
		m, ok := errors.AsType[*Mismatch](err)
		if !ok || m.From != c.from || m.To != c.to || m.Record != c.record || m.Node != "mx1.example" {
			t.Errorf("%s: %v: %+v", name, err, m)
		}
	}
	// What nobody has signed yet can be forged, and that is what the result says.
	if r, err := held(n.evidence(), rewritten(t, text, 35, func(r map[string]any) { r["person"] = "bert" })); err != nil || r.Record != 30 {
		t.Errorf("%+v, %v", r, err)
	}
}

// lines returns the first n lines.
func lines(text []byte, n int) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		if n--; n < 0 {
			break
		}
		out = append(out, line...)
	}
	return out
}

// Wherever a byte is changed, in the log or in the checkpoints, that is found, and where it can be
// told the records are named.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	n := signedLog(t)
	text := n.export()
	line := func(at int) uint64 { return uint64(bytes.Count(text[:at], []byte("\n"))) + 1 }
	random := rand.New(rand.NewPCG(8, 2026))
	for range 150 {
		at := random.IntN(len(text))
		damaged := bytes.Clone(text)
		damaged[at] ^= 1 << random.IntN(8)
		_, err := held(n.evidence(), damaged)
		m, ok := errors.AsType[*Mismatch](err)
		if !ok || m.Record != line(at) || m.From > line(at) || m.To != 0 && m.To < line(at) {
			t.Fatalf("byte %d, record %d: %v", at, line(at), err)
		}
		if want := (line(at)-1)/10*10 + 1; m.From != want {
			t.Fatalf("byte %d, record %d: from %d, want %d", at, line(at), m.From, want)
		}
	}
	good, err := os.ReadFile(n.path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range good {
		damaged := bytes.Clone(good)
		damaged[at] ^= 1 << random.IntN(8)
		e := n.evidence()
		if e.Checkpoints, err = Read(bytes.NewReader(damaged)); err == nil {
			_, err = held(e, text)
		}
		// Only a line that a byte made a remark is no longer there; it is missing in the middle,
		// or at the beginning, and says so nowhere else.
		if err == nil && !bytes.Contains(damaged, []byte("\n#")) && damaged[0] != '#' {
			t.Fatalf("byte %d of the checkpoints: %q", at, damaged)
		}
	}
}

// Lines that aren't what this node has signed one after the other are refused.
func TestCheckpointsThatCantBeBelieved(t *testing.T) {
	t.Parallel()
	n := signedLog(t)
	text, e := n.export(), n.evidence()
	twin := newNode(t, "mx1.example", t.TempDir())
	twin.key.Store(n.key.Load())
	twin.write(3)
	forked := twin.sign()
	stranger := newNode(t, "mx1.example", t.TempDir())
	stranger.write(3)
	other := newNode(t, "mx2.example", t.TempDir())
	other.key.Store(n.key.Load())
	other.write(3)
	other.sign()
	renamed := e.Checkpoints[1]
	renamed.Head.Number = 21
	invented, err := Parse(renamed.signed() + " " + base64Text.EncodeToString(renamed.signature))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		all  []Checkpoint
		want error
		says string
	}{
		"none":                      {nil, ErrNoCheckpoint, "none of node mx1.example"},
		"of another node":           {other.evidence().Checkpoints, ErrNoCheckpoint, "none of node mx1.example"},
		"by another key":            {append([]Checkpoint{stranger.sign()}, e.Checkpoints[1:]...), ErrBadCheckpoint, "isn't among those that are trusted"},
		"one count twice":           {append([]Checkpoint{forked}, e.Checkpoints...), ErrBadCheckpoint, "set back"},
		"one that doesn't follow":   {append([]Checkpoint{forked}, e.Checkpoints[1:]...), ErrBadCheckpoint, "doesn't follow"},
		"another head in a line":    {[]Checkpoint{e.Checkpoints[0], invented}, ErrBadCheckpoint, "doesn't hold"},
		"twice the same is nothing": {append(append([]Checkpoint(nil), e.Checkpoints...), e.Checkpoints...), nil, ""},
		"in any order, and others'": {append(append([]Checkpoint{e.Checkpoints[2]}, other.evidence().Checkpoints...), e.Checkpoints[0]), nil, ""},
	} {
		_, err := held(Evidence{Keys: e.Keys, Checkpoints: c.all}, text)
		if !errors.Is(err, c.want) || c.want != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A node whose log was begun anew is found, and can be said to be known.
func TestReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := newNode(t, "mx1.example", dir)
	old.write(17)
	old.sign()
	if err := os.RemoveAll(filepath.Join(dir, "audit")); err != nil {
		t.Fatal(err)
	}
	fresh := newNode(t, "mx1.example", dir)
	fresh.key.Store(old.key.Load())
	if len(fresh.alarms.List()) == 0 {
		t.Error("no alarm")
	}
	fresh.write(2)
	fresh.sign()
	e := fresh.evidence()
	_, err := held(e, fresh.export())
	m, ok := errors.AsType[*Mismatch](err)
	if !ok || m.From != 1 || m.To != 17 || !strings.Contains(m.Why, "begun anew") {
		t.Errorf("%v", err)
	}
	e.Replaced = true
	if r, err := held(e, fresh.export()); err != nil || len(r.Earlier) != 1 || r.Checkpoints != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Who knows the old key can go on to the new one; then the old one signs nothing any more.
func TestRotation(t *testing.T) {
	t.Parallel()
	n := newNode(t, "mx1.example", t.TempDir())
	first := n.key.Load()
	n.write(5)
	n.sign()
	text, err := newKey(t, first).PEM()
	if err != nil {
		t.Fatal(err)
	}
	second, err := ParseKey(text)
	if err != nil || !second.Follows() {
		t.Fatalf("%v", err)
	}
	n.key.Store(second)
	n.write(5)
	if c := n.sign(); c.Handover == nil || c.Key != second.ID() {
		t.Errorf("%+v", c)
	}
	n.write(5)
	if c := n.sign(); c.Handover != nil {
		t.Errorf("said twice: %+v", c)
	}
	e := n.evidence()
	e.Keys = []ed25519.PublicKey{first.Public()}
	r, err := held(e, n.export())
	if err != nil || len(r.Keys) != 2 || r.Keys[1] != second.ID() {
		t.Fatalf("%+v, %v", r, err)
	}
	behind := len(e.Checkpoints)
	n.key.Store(newKey(t, first)) // by who has found the old key
	n.write(1)
	n.sign()
	found := Evidence{Keys: e.Keys, Checkpoints: n.evidence().Checkpoints}
	if _, err := held(found, n.export()); !errors.Is(err, ErrBadCheckpoint) || !strings.Contains(err.Error(), "isn't among those that are trusted") {
		t.Errorf("a key that one which was followed hands over to, in checkpoint %d: %v", behind+1, err)
	}
}

// A key without a word of the one before is trusted by itself only, and one that was followed
// not even then.
func TestRotationWithoutHandover(t *testing.T) {
	t.Parallel()
	n := newNode(t, "mx1.example", t.TempDir())
	first := n.key.Load()
	n.write(5)
	n.sign()
	n.key.Store(newKey(t, first))
	n.write(5)
	n.sign()
	e := n.evidence()
	e.Keys = []ed25519.PublicKey{first.Public()}
	n.key.Store(newKey(t, nil)) // without a word of the one before
	n.write(1)
	n.sign()
	e.Checkpoints = n.evidence().Checkpoints
	if _, err := held(e, n.export()); !errors.Is(err, ErrBadCheckpoint) {
		t.Errorf("a key that nobody knows: %v", err)
	}
	e.Keys = append(e.Keys, n.key.Load().Public())
	if r, err := held(e, n.export()); err != nil || len(r.Keys) != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	n.key.Store(first)
	n.write(1)
	n.sign()
	e.Checkpoints = n.evidence().Checkpoints
	if _, err := held(e, n.export()); !errors.Is(err, ErrBadCheckpoint) || !strings.Contains(err.Error(), "behind one that had followed it") {
		t.Errorf("a key that was followed: %v", err)
	}
}

// Keys are read as they were written; anything else isn't one, and nothing of it is told.
func TestKeys(t *testing.T) {
	t.Parallel()
	k := newKey(t, newKey(t, nil))
	private, err := k.PEM()
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseKey(private); err != nil || got.ID() != k.ID() {
		t.Errorf("%v", err)
	}
	if got, err := ParsePublic(append(public, public...)); err != nil || len(got) != 2 || IDOf(got[0]) != k.ID() {
		t.Errorf("%v", err)
	}
	other, err := newKey(t, newKey(t, nil)).PEM()
	if err != nil {
		t.Fatal(err)
	}
	_, foreign, _ := strings.Cut(string(other), "-----END PRIVATE KEY-----\n")
	for name, text := range map[string]string{
		"nothing": "", "a public key": string(public), "two": string(private) + string(private), "half": string(private[:60]),
		"another's handover": strings.Replace(string(private), "-----BEGIN MAILCUTOVER", foreign+"-----BEGIN MAILCUTOVER", 1),
	} {
		if _, err := ParseKey([]byte(text)); !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{"nothing": "", "a private key": string(private)} {
		if _, err := ParsePublic([]byte(text)); !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A book goes on behind its last whole line, and isn't written to if it isn't one.
func TestBook(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := newNode(t, "mx1.example", dir)
	n.write(1)
	n.sign()
	n.sign()
	whole, err := os.ReadFile(n.path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"torn": string(whole) + "mcac1 mx1.ex", "whole": string(whole)} {
		if err := os.WriteFile(n.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n.book, err = OpenBook(n.path); err != nil {
			t.Fatal(err)
		}
		n.keeper.o.Book = n.book
		if c := n.sign(); c.Count != 3 {
			t.Errorf("%s: %+v", name, c)
		}
		if _, err := held(n.evidence(), n.export()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Truncate(n.path, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := n.keeper.Make(t.Context()); err == nil || !strings.Contains(err.Error(), "somebody cut it") {
		t.Errorf("a book that was cut meanwhile: %v", err)
	}
	if len(n.alarms.List()) == 0 {
		t.Error("no alarm")
	}
	if err := os.WriteFile(n.path, []byte("my letters\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBook(n.path); !errors.Is(err, ErrBadCheckpoint) {
		t.Errorf("somebody's letters: %v", err)
	}
}

// The keeper signs after so many records, after so long, and at the end.
func TestKeeper(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, "mx1.example", dir)
		var stored atomic.Uint64
		var takes atomic.Bool
		n.keeper.o.Store = func(_ context.Context, last []Checkpoint) error {
			if !takes.Load() {
				return errors.New("table is away")
			}
			stored.Store(last[len(last)-1].Count)
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.keeper.Run(ctx)
		}()
		count := func() (c uint64) {
			synctest.Wait()
			if last := n.book.Last(); len(last) > 0 {
				c = last[len(last)-1].Count
			}
			return c
		}
		n.write(9)
		if got := count(); got != 0 {
			t.Errorf("%d after 9 records", got)
		}
		n.write(1)
		if got := count(); got != 1 || stored.Load() != 0 {
			t.Errorf("%d after 10 records, %d stored", got, stored.Load())
		}
		takes.Store(true)
		time.Sleep(retryPause + time.Second)
		if count(); stored.Load() != 1 {
			t.Errorf("%d stored", stored.Load())
		}
		n.write(1)
		time.Sleep(59 * time.Minute)
		if got := count(); got != 1 {
			t.Errorf("%d before an hour", got)
		}
		time.Sleep(2 * time.Minute)
		if got := count(); got != 2 {
			t.Errorf("%d after an hour", got)
		}
		time.Sleep(24 * time.Hour)
		if got := count(); got != 2 {
			t.Errorf("%d with nothing new", got)
		}
		key := n.key.Swap(nil)
		n.write(20)
		time.Sleep(2 * time.Hour)
		if got := count(); got != 2 {
			t.Errorf("%d without a key", got)
		}
		if _, err := n.keeper.Make(ctx); !errors.Is(err, ErrNoKey) {
			t.Errorf("%v", err)
		}
		n.key.Store(key)
		n.write(1)
		if got := count(); got != 3 || stored.Load() != 3 {
			t.Errorf("%d, %d stored", got, stored.Load())
		}
		n.write(1)
		cancel()
		<-done
		if got := count(); got != 4 || stored.Load() != 4 {
			t.Errorf("%d at the end, %d stored", got, stored.Load())
		}
	})
}
