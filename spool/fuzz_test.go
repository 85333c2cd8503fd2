package spool

import (
	"bytes"
	"io"
	"reflect"
	"testing"

	"mailcutover/internal/durable/memdisk"
	"mailcutover/mail"
)

// onDisk returns a file with these bytes.
func onDisk(t testing.TB, b []byte) (*memdisk.Disk, string) {
	disk := memdisk.New()
	if err := disk.MakeDir("/d"); err != nil {
		t.Fatal(err)
	}
	disk.Change("/d/f", append([]byte{}, b...))
	return disk, "/d/f"
}

// FuzzSegment wants scan to end, to yield only records whose checksums are right, in
// order, and to account for every byte.
func FuzzSegment(f *testing.F) {
	var id spoolID
	id[0] = 7
	b := appendHeader(nil, id, 1)
	env := envelope(f)
	for i := range 3 {
		r := rcpt("anna", "health", StateHeld)
		x := fixed{seq: uint64(i + 1), first: 1, size: 5, bodyCRC: 1}
		b = id.appendRecord(b, position{1, uint32(len(b))}, recordMessage, appendHead(x.append(nil), &env, []Recipient{r}), []byte("body\n"), 1)
		o := outcome{rcpt: 0}
		o.State = StateDelivered
		b = id.appendRecord(b, position{1, uint32(len(b))}, recordOutcome, appendOutcome(nil, &o), nil, 0)
	}
	f.Add(b, 60, byte(0))
	f.Add(b, 200, byte(1))
	f.Add(b[:100], 3, byte(255))
	f.Add(bytes.Repeat(b, 2), 400, byte(8))
	f.Fuzz(func(t *testing.T, b []byte, at int, x byte) {
		if at >= 0 && at < len(b) {
			b[at] ^= x
		}
		disk, path := onDisk(t, b)
		file, err := disk.OpenAt(path)
		if err != nil {
			t.Fatal(err)
		}
		end, bytes := int64(0), int64(0)
		gaps, err := id.scan(file, 1, true, func(r *record) error {
			off := int64(r.at.offset)
			if off < end || r.at.segment != 1 {
				t.Fatalf("record at %s, the one before ended at %d", r.at, end)
			}
			end = off + r.frame.padded()
			bytes += r.frame.padded()
			if !id.proves(r.at, &r.frame, b[off:], b[off+frameBytes:off+frameBytes+int64(r.frame.head)]) {
				t.Fatalf("record at %s has a wrong checksum", r.at)
			}
			parseHead(r.head)
			parseOutcome(r.head)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range gaps {
			bytes += g.to - g.from
		}
		if header := min(int64(len(b)), headerBytes); bytes != int64(len(b)) && bytes+header != int64(len(b)) {
			t.Fatalf("%d of %d bytes are accounted for", bytes, len(b))
		}
	})
}

// FuzzHead wants a head that can be read to be written again as the same message.
func FuzzHead(f *testing.F) {
	env := envelope(f)
	id, _ := env.Transaction.Bytes()
	x := fixed{id: id, seq: 1, first: 1, size: 5}
	tried := rcpt("bert", "", StateWaiting)
	tried.Last = Result{Time: env.Time, Code: 451, Platform: "ox", Attempts: 1, Next: env.Time}
	f.Add(appendHead(x.append(nil), &env, []Recipient{rcpt("anna", "health", StateHeld), tried}))
	tried.Last.Cause = CauseDoubt
	f.Add(appendHead(x.append(nil), &env, []Recipient{tried, rcpt("anna", "health", StateHeld)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseHead(b)
		if err != nil {
			return
		}
		x, _, _ := parseFixed(b)
		again, err := parseHead(appendHead(x.append(nil), &m.Envelope, m.Recipients))
		for i := range m.Recipients {
			m.Recipients[i].Reason = cut(m.Recipients[i].Reason, MaxText)
		}
		m.MessageID = cut(m.MessageID, MaxMessageID)
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v, %v, was %+v", again, err, m)
		}
	})
}

// FuzzOutcome wants an outcome that can be read to be written again as the same.
func FuzzOutcome(f *testing.F) {
	o := outcome{id: [16]byte{1}, rcpt: 3, ended: true, first: 1, last: 9}
	o.State, o.Reason, o.Code, o.Platform = StateWaiting, "full", 452, "ox"
	f.Add(appendOutcome(nil, &o))
	o.Cause = CauseUnavailable
	f.Add(appendOutcome(nil, &o))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := parseOutcome(b)
		if err != nil {
			return
		}
		again, err := parseOutcome(appendOutcome(nil, &o))
		o.Reason = cut(o.Reason, MaxText)
		if err != nil || !reflect.DeepEqual(o, again) {
			t.Fatalf("%+v, %v, was %+v", again, err, o)
		}
	})
}

// FuzzBodyFile wants no file but the right one to be verified.
func FuzzBodyFile(f *testing.F) {
	id := mail.TransactionIDOf([16]byte{1})
	raw, _ := id.Bytes()
	const text = "Subject: x\r\n\r\nbody\r\n"
	crc := checksum(text)
	right := append([]byte(bodyLine(raw)+text), appendTrailer(nil, int64(len(text)), crc)...)
	f.Add(right)
	f.Add(right[:len(right)-1])
	f.Add(append([]byte{'x'}, right...))
	f.Fuzz(func(t *testing.T, b []byte) {
		disk, path := onDisk(t, b)
		file, err := disk.OpenAt(path)
		if err != nil {
			t.Fatal(err)
		}
		at, err := checkBodyFile(file, raw, int64(len(text)), crc)
		if err != nil {
			return
		}
		body := &Body{id: id, file: file, at: at, left: int64(len(text)), size: int64(len(text)), want: crc}
		got, err := io.ReadAll(body)
		if err == nil {
			err = body.Verify()
		}
		if err == nil && !bytes.Equal(b, right) {
			t.Fatalf("%q is taken for the body, read as %q", b, got)
		}
	})
}

// FuzzIdentity wants an id file that can be read to be written again as the same.
func FuzzIdentity(f *testing.F) {
	id := Identity{ID: "00112233445566778899aabbccddeeff", Owner: "node1", Past: []string{"node0"}}
	f.Add(id.text())
	f.Fuzz(func(t *testing.T, s string) {
		id, err := parseIdentity(s)
		if err != nil {
			return
		}
		if again, err := parseIdentity(id.text()); err != nil || !reflect.DeepEqual(again, id) {
			t.Fatalf("%+v, %v, was %+v", again, err, id)
		}
	})
}
