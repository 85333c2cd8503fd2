package retained

import (
	"crypto/sha256"
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

// Digest is the SHA-256 of a message as it was handed to the platform.
type Digest [sha256.Size]byte

// Message is what the envelope of a copy says.
type Message struct {
	Transaction mail.TransactionID
	Platform    routing.PlatformID // that took it
	Origin      mail.Origin
	From        string             // envelope sender as on the wire, without brackets; empty: <>
	MessageID   string             // of the header; empty if it has none
	Options     gosmtp.MailOptions // of MAIL: Body, UTF8 and RequireTLS are kept
}

// Copy is what is known of a retained copy: all but its content.
type Copy struct {
	Message
	Agency     routing.AgencyID
	Kept       time.Time          // right after the platform's answer; in microseconds
	Size       int64              // bytes of the message
	Digest     Digest             //
	Recipients []ledger.Recipient // of the agency, for whom the platform took it

	place place
}

// place is where a body is.
type place struct {
	segment uint64
	large   uint64   // number of its own file; 0: it is in the segment's bodies
	offset  int64    // in bodies; 0 in a file of its own
	stored  int64    // bytes there
	salt    [16]byte // of a file of its own that is sealed
}

// String names c among all copies: a message may have several, for recipients that were not
// delivered together.
func (c *Copy) String() string {
	return fmt.Sprintf("%s/%s.%d.%d", c.Transaction, c.Agency, c.place.segment, c.place.offset+int64(c.place.large))
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
	headLarge
	headFlags = headUTF8 | headRequireTLS | headLarge
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
	for flag, set := range map[byte]bool{headUTF8: c.Options.UTF8, headRequireTLS: c.Options.RequireTLS, headLarge: c.place.large > 0} {
		if set {
			flags |= flag
		}
	}
	b = append(b, headVersion, flags, byte(c.Origin))
	b = append(b, id[:]...)
	b = append(b, c.Digest[:]...)
	b = binary.AppendVarint(b, c.Kept.UnixMicro())
	b = binary.AppendUvarint(b, uint64(c.Size))
	if c.place.large > 0 {
		b = binary.AppendUvarint(b, c.place.large)
		b = append(b, c.place.salt[:]...)
	} else {
		b = binary.AppendUvarint(b, uint64(c.place.offset))
	}
	b = binary.AppendUvarint(b, uint64(c.place.stored))
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
	copy(c.Digest[:], r.take(uint64(len(c.Digest))))
	c.Kept = time.UnixMicro(r.varint())
	c.Size = int64(r.uvarint())
	if flags&headLarge != 0 {
		c.place.large = r.uvarint()
		copy(c.place.salt[:], r.take(16))
	} else {
		c.place.offset = int64(r.uvarint())
	}
	c.place.stored = int64(r.uvarint())
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
	if r.bad || len(r.b) > 0 || c.Size < 0 || c.place.offset < 0 || c.place.stored < 0 || flags&headLarge != 0 && c.place.large == 0 {
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
