package retained

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/internal/seal"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
)

func open(t *testing.T, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "retained")
	}
	if o.Patience == 0 {
		o.Patience = 10 * time.Minute // no copy is to be left out because the disk is busy
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func keys(t *testing.T, lines ...string) *seal.Keys {
	t.Helper()
	if len(lines) == 0 {
		lines = []string{seal.NewKey("one")}
	}
	k, err := seal.ParseKeys(strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// text is a message of about n bytes that compresses like one.
func text(n int) []byte {
	var b bytes.Buffer
	b.WriteString("Received: from a by b\r\nSubject: report\r\n\r\n")
	for b.Len() < n {
		fmt.Fprintf(&b, "%x the quick brown fox %d\r\n", rand.Uint64(), rand.IntN(1000))
	}
	return b.Bytes()[:max(n, 50)]
}

func to(agency routing.AgencyID, names ...string) (all []ledger.Recipient) {
	for _, name := range names {
		all = append(all, ledger.Recipient{
			Address: routing.Address(name + "@" + string(agency) + ".example"), Agency: agency,
			Mailbox: mailbox(name), Epoch: routing.Epoch{Term: 1, Number: 7},
		})
	}
	return all
}

func digestOf(body []byte) ledger.Digest {
	var d ledger.Digester
	d.Reset()
	_, _ = d.Write(body)
	return d.Digest()
}

func mailbox(name string) (id routing.MailboxID) {
	copy(id[:], name+"................")
	return id
}

// put keeps a message, written in parts.
func put(s *Store, body []byte, rcpts ...ledger.Recipient) *Message {
	m := &Message{
		Transaction: mail.NewTransactionID(), Digest: digestOf(body), Platform: "ox", Origin: mail.OriginOutside, From: "sender@elsewhere.example",
		MessageID: "1@elsewhere.example", Options: gosmtp.MailOptions{Body: gosmtp.Body8BitMIME, UTF8: true},
	}
	var agencies []routing.AgencyID
	for _, r := range rcpts {
		agencies = append(agencies, r.Agency)
	}
	in := s.Begin(agencies...)
	defer in.Discard()
	for len(body) > 0 {
		n := min(len(body), 32<<10)
		in.Write(body[:n])
		body = body[n:]
	}
	in.Keep(m, rcpts)
	return m
}

func find(t *testing.T, s *Store, q Query) (all []Copy) {
	t.Helper()
	for c, err := range s.Find(t.Context(), q) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func read(t *testing.T, s *Store, c *Copy) []byte {
	t.Helper()
	b, err := s.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// What was kept is found by transaction, recipient, mailbox and time, byte for byte, before and
// after a start; whatever its size, and whether it is compressed or sealed.
func TestKeepAndFind(t *testing.T) {
	for name, o := range map[string]Options{
		"compressed": {}, "plain": {Uncompressed: true}, "sealed": {Keys: keys(t)}, "sealed and plain": {Keys: keys(t), Uncompressed: true},
	} {
		t.Run(name, func(t *testing.T) {
			o.Dir = filepath.Join(t.TempDir(), "retained")
			s := open(t, o)
			sizes := []int{50, 1000, chunkBytes - 1, chunkBytes, chunkBytes + 1, 300_000}
			bodies := map[mail.TransactionID][]byte{}
			began := time.Now().Truncate(time.Microsecond)
			for i, n := range sizes {
				body := text(n)
				m := put(s, body, to("health", "dora", fmt.Sprintf("m%d", i))...)
				bodies[m.Transaction] = body
			}
			noise := make([]byte, 200_000) // grows when it is compressed
			_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
			bodies[put(s, noise, to("health", "dora")...).Transaction] = noise
			put(s, text(100), to("tax", "erik")...)
			check := func(s *Store) {
				t.Helper()
				all := find(t, s, Query{Agency: "health", Since: began})
				if len(all) != len(bodies) {
					t.Fatalf("%d copies, want %d", len(all), len(bodies))
				}
				for i := range all {
					c := &all[i]
					if got := read(t, s, c); !bytes.Equal(got, bodies[c.Transaction]) {
						t.Errorf("copy of %d bytes: another content", c.Size)
					}
					if c.Digest != digestOf(bodies[c.Transaction]) || c.From != "sender@elsewhere.example" || c.Platform != "ox" || c.MessageID != "1@elsewhere.example" ||
						c.Options.Body != gosmtp.Body8BitMIME || !c.Options.UTF8 || c.Origin != mail.OriginOutside || c.Recipients[0] != to("health", "dora")[0] {
						t.Errorf("head is %+v", c)
					}
				}
				if got := find(t, s, Query{Transaction: all[2].Transaction}); len(got) != 1 || got[0].Size != int64(sizes[2]) {
					t.Errorf("by transaction: %v", got)
				}
				if got := find(t, s, Query{Recipient: "m1@health.example"}); len(got) != 1 || got[0].Size != int64(sizes[1]) {
					t.Errorf("by recipient: %v", got)
				}
				if got := find(t, s, Query{Mailbox: mailbox("m4")}); len(got) != 1 || got[0].Size != int64(sizes[4]) {
					t.Errorf("by mailbox: %v", got)
				}
				if got := find(t, s, Query{Agency: "health", Since: time.Now().Add(time.Hour)}); len(got) != 0 {
					t.Errorf("%d copies in the future", len(got))
				}
				if got := find(t, s, Query{Agency: "health", Until: began}); len(got) != 0 {
					t.Errorf("%d copies before the first", len(got))
				}
				st := s.Status()
				if st.Copies != len(bodies)+1 || len(st.Agencies) != 2 || st.Failed != 0 || st.Err != nil || st.Damaged != 0 {
					t.Errorf("status is %+v", st)
				}
			}
			check(s)
			before := s.Status().Bytes
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, o)
			check(s)
			if after := s.Status().Bytes; after != before+2*endBytes {
				t.Errorf("%d bytes after a start, %d before", after, before)
			}
		})
	}
}

// Nothing is left of what was not delivered, and recipients of other agencies are not in a copy.
func TestDiscard(t *testing.T) {
	o := Options{Dir: filepath.Join(t.TempDir(), "retained")}
	s := open(t, o)
	for _, n := range []int{1000, 300_000} {
		in := s.Begin("health", "tax")
		in.Write(text(n))
		in.Discard()
		in.Discard()
		in = s.Begin("health", "tax")
		in.Write(text(n))
		in.Keep(&Message{Transaction: mail.NewTransactionID()}, to("tax", "erik"))
		in.Discard()
	}
	if got := find(t, s, Query{}); len(got) != 2 || got[0].Agency != "tax" || got[1].Agency != "tax" {
		t.Errorf("copies are %v, want two of tax", got)
	}
}

// No copy is made but of an agency on its target whose way back is open.
func TestWayBack(t *testing.T) {
	now := map[routing.AgencyID]WayBack{"open": WayBackOpen, "none": WayBackNone, "over": WayBackOver}
	s := open(t, Options{WayBack: func(id routing.AgencyID) WayBack { return now[id] }})
	for _, id := range []routing.AgencyID{"none", "over", "unknown"} {
		if in := s.Begin(id); in != nil {
			t.Errorf("a copy for agency %s", id)
		}
	}
	put(s, text(100), append(to("none", "a"), to("open", "b")...)...)
	if got := find(t, s, Query{}); len(got) != 1 || got[0].Agency != "open" || len(got[0].Recipients) != 1 {
		t.Errorf("copies are %v", got)
	}
}

func fileNames(t *testing.T, s *Store) []string {
	t.Helper()
	names, err := s.folder.Names()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

var errDisk = errors.New("disk on fire")

func TestFindEnds(t *testing.T) {
	s := open(t, Options{})
	for range 5 {
		put(s, text(100), to("health", "dora")...)
	}
	n := 0
	for range s.Find(t.Context(), Query{}) {
		if n++; n == 2 {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range s.Find(ctx, Query{}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("yields %v, want the context's error", err)
		}
	}
	if n != 2 {
		t.Errorf("%d copies", n)
	}
}
