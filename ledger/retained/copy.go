package retained

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
)

// Message is what the envelope of a copy says.
type Message struct {
	Transaction mail.TransactionID
	Platform    routing.PlatformID // that took it
	Origin      mail.Origin
	From        string             // envelope sender as on the wire, without brackets; empty: <>
	MessageID   string             // of the header; empty if it has none
	Options     gosmtp.MailOptions // of MAIL: Body, UTF8 and RequireTLS are kept
	Digest      ledger.Digest      // of the message as it was handed over, as the ledger has it; 0: not known
}

// Copy is what is known of a retained copy: all but its content.
type Copy struct {
	Message
	Agency     routing.AgencyID
	Kept       time.Time          // right after the platform's answer; in microseconds
	Size       int64              // bytes of the message
	Recipients []ledger.Recipient // of the agency, for whom the platform took it

	place place
}

// place is where a body is.
type place struct {
	segment uint64
	chunks  []span
}

// span is a chunk, with its head, in a segment's bodies.
type span struct{ at, bytes int64 }

// String names c among all copies: a message may have several, for recipients that were not
// delivered together.
func (c *Copy) String() string {
	at := int64(0)
	if len(c.place.chunks) > 0 {
		at = c.place.chunks[0].at
	}
	return fmt.Sprintf("%s/%s.%d.%d", c.Transaction, c.Agency, c.place.segment, at)
}

// Bounds of what a head says; what is longer is cut.
const (
	maxText       = 400
	maxRecipients = ledger.MaxRecipients
	headVersion   = 1
)

// Flags of a head.
const (
	headUTF8 = 1 << iota
	headRequireTLS
	headFlags = headUTF8 | headRequireTLS
)

// errHead says that a head can't be read by this version.
var errHead = errors.New("head can't be read")

// append appends c as a head has it.
func (c *Copy) append(b []byte) ([]byte, error) {
	id, err := c.Transaction.Bytes()
	if err != nil {
		return b, err
	}
	var flags byte
	for flag, set := range map[byte]bool{headUTF8: c.Options.UTF8, headRequireTLS: c.Options.RequireTLS} {
		if set {
			flags |= flag
		}
	}
	b = append(b, headVersion, flags, byte(c.Origin))
	b = append(b, id[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Digest))
	b = binary.AppendVarint(b, c.Kept.UnixMicro())
	b = binary.AppendUvarint(b, uint64(c.Size))
	b = binary.AppendUvarint(b, uint64(len(c.place.chunks)))
	behind := int64(0)
	for _, p := range c.place.chunks {
		b = binary.AppendUvarint(b, uint64(p.at-behind))
		b = binary.AppendUvarint(b, uint64(p.bytes))
		behind = p.at + p.bytes
	}
	for _, s := range []string{string(c.Platform), c.From, c.MessageID, string(c.Options.Body)} {
		b = appendText(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(c.Recipients)))
	for i := range c.Recipients {
		r := &c.Recipients[i]
		b = appendText(b, string(r.Address))
		b = append(b, r.Mailbox[:]...)
		b = binary.AppendUvarint(b, uint64(r.Epoch.Term))
		b = binary.AppendUvarint(b, uint64(r.Epoch.Number))
	}
	return b, nil
}

func appendText(b []byte, s string) []byte {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// read sets c to what a head says, but for the agency and the segment.
func (c *Copy) read(b []byte) error {
	r := reader{b: b}
	if r.byte() != headVersion {
		return errHead
	}
	flags := r.byte()
	*c = Copy{Agency: c.Agency, place: place{segment: c.place.segment}}
	c.Origin = mail.Origin(r.byte())
	c.Options.UTF8, c.Options.RequireTLS = flags&headUTF8 != 0, flags&headRequireTLS != 0
	var id [16]byte
	copy(id[:], r.take(16))
	c.Transaction = mail.TransactionIDOf(id)
	if digest := r.take(8); digest != nil {
		c.Digest = ledger.Digest(binary.LittleEndian.Uint64(digest))
	}
	c.Kept = time.UnixMicro(r.varint())
	c.Size = int64(r.uvarint())
	if chunks := r.uvarint(); chunks > uint64(len(r.b)) {
		return errHead
	} else if chunks > 0 {
		c.place.chunks = make([]span, chunks)
	}
	behind := int64(0)
	for i := range c.place.chunks {
		p := span{at: behind + int64(r.uvarint()), bytes: int64(r.uvarint())}
		if p.at < behind || p.bytes < chunkHead || p.bytes > chunkHead+mostStored {
			return errHead
		}
		c.place.chunks[i], behind = p, p.at+p.bytes
	}
	c.Platform = routing.PlatformID(r.text())
	c.From, c.MessageID = r.text(), r.text()
	c.Options.Body = gosmtp.BodyType(r.text())
	n := r.uvarint()
	if n > maxRecipients || flags&^byte(headFlags) != 0 {
		return errHead
	}
	for ; n > 0 && !r.bad; n-- {
		to := ledger.Recipient{Address: routing.Address(r.text()), Agency: c.Agency}
		copy(to.Mailbox[:], r.take(uint64(len(to.Mailbox))))
		to.Epoch = routing.Epoch{Term: uint32(r.uvarint()), Number: uint32(r.uvarint())}
		c.Recipients = append(c.Recipients, to)
	}
	if r.bad || len(r.b) > 0 || c.Size < 0 {
		return errHead
	}
	return nil
}

// reader takes values off a head. After the first that isn't there all are zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) text() string { return string(r.take(r.uvarint())) }
