package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/internal/seal"
	"mailcutover/mail"
	"mailcutover/routing"
)

// ErrBadRecord is wrapped by the errors about records whose checksum is right but which
// this version can't read.
var ErrBadRecord = errors.New("bad record")

// MaxRecipients is the largest number of recipients of a message.
const MaxRecipients = 60000

// The head of a message record: a part of fixed length, which is what memory keeps and
// what changes when a record moves, then the envelope and the recipients.
const (
	headVersion = 1
	headSealed  = 2 // the same, of a body that is encrypted: size and checksum are those of what is on the disk
	fixedBytes  = 1 + 16 + 8 + 4 + 8 + 8 + 4 + 4 + 4
)

// fixed is the part of fixed length.
type fixed struct {
	id      [16]byte
	seq     uint64
	first   uint32 // segment of the message's first record
	time    int64  // of the envelope, in nanoseconds since 1970
	size    int64  // of the body
	bodyCRC uint32
	body    position // where the body is; bodyHere and bodyInFile are special
	sealed  bool     // the body is encrypted
}

// plainSize returns how long the body is that is delivered.
func (f *fixed) plainSize() (int64, error) {
	if !f.sealed {
		return f.size, nil
	}
	return seal.PlainSize(f.size)
}

// What may stand in a body's position instead of a place in another segment.
var (
	bodyHere   = position{segment: 0, offset: 0} // behind this head
	bodyInFile = position{segment: 0, offset: 1} // bodies/TRANSACTION.body
)

func (f *fixed) append(b []byte) []byte {
	if f.sealed {
		b = append(b, headSealed)
	} else {
		b = append(b, headVersion)
	}
	b = append(b, f.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, f.seq)
	b = binary.LittleEndian.AppendUint32(b, f.first)
	b = binary.LittleEndian.AppendUint64(b, uint64(f.time))
	b = binary.LittleEndian.AppendUint64(b, uint64(f.size))
	b = binary.LittleEndian.AppendUint32(b, f.bodyCRC)
	b = binary.LittleEndian.AppendUint32(b, f.body.segment)
	return binary.LittleEndian.AppendUint32(b, f.body.offset)
}

// parseFixed returns the part of fixed length and what follows it.
func parseFixed(b []byte) (f fixed, rest []byte, err error) {
	if len(b) < fixedBytes {
		return f, nil, fmt.Errorf("%w: head of %d bytes", ErrBadRecord, len(b))
	}
	if b[0] != headVersion && b[0] != headSealed {
		return f, nil, fmt.Errorf("%w: head of version %d", ErrBadRecord, b[0])
	}
	le := binary.LittleEndian
	f.sealed = b[0] == headSealed
	copy(f.id[:], b[1:])
	f.seq, f.first = le.Uint64(b[17:]), le.Uint32(b[25:])
	f.time, f.size = int64(le.Uint64(b[29:])), int64(le.Uint64(b[37:]))
	f.bodyCRC = le.Uint32(b[45:])
	f.body = position{le.Uint32(b[49:]), le.Uint32(b[53:])}
	if f.size < 0 {
		return f, nil, fmt.Errorf("%w: body of %d bytes", ErrBadRecord, f.size)
	}
	return f, b[fixedBytes:], nil
}

// Numbers stand as varints, strings behind their length.

func appendString[S ~string](b []byte, s S) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendVarint(b, 0)
	}
	return binary.AppendVarint(b, t.UnixNano())
}

func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, 0)
	}
	var room [64]byte
	text := a.AppendTo(room[:0])
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// appendEnvelope appends e, but for what the fixed part has.
func appendEnvelope(b []byte, e *Envelope) []byte {
	c := &e.Client
	b = appendString(b, c.Session)
	b = appendString(b, c.Listener)
	b = append(b, byte(c.Origin))
	b = appendAddrPort(b, c.Peer)
	b = appendAddrPort(b, c.Source)
	b = appendAddrPort(b, c.Addr)
	b = appendAddrPort(b, c.Local)
	b = appendString(b, c.Name)
	b = appendString(b, c.Helo)
	b = appendString(b, c.With)
	b = appendString(b, c.TLS)
	b = appendString(b, e.From.String())
	o := &e.Options
	b = appendString(b, o.Body)
	b = binary.AppendVarint(b, o.Size)
	b = appendBool(b, o.RequireTLS)
	b = appendBool(b, o.UTF8)
	b = appendString(b, o.Return)
	b = appendString(b, o.EnvelopeID)
	b = appendBool(b, o.Auth != nil)
	if o.Auth != nil {
		b = appendString(b, *o.Auth)
	}
	return appendString(b, cut(e.MessageID, MaxMessageID))
}

func appendRecipient(b []byte, r *Recipient) []byte {
	b = appendString(b, r.Address)
	b = append(b, r.Mailbox[:]...)
	b = appendString(b, r.Agency)
	b = append(b, byte(r.State))
	b = appendString(b, cut(r.Reason, MaxText))
	b = appendString(b, r.To.String())
	o := &r.Options
	b = binary.AppendUvarint(b, uint64(len(o.Notify)))
	for _, n := range o.Notify {
		b = appendString(b, n)
	}
	b = appendString(b, o.OriginalRecipientType)
	b = appendString(b, o.OriginalRecipient)
	b = appendTime(b, o.RequireRecipientValidSince)
	b = appendBool(b, o.DeliverBy != nil)
	if d := o.DeliverBy; d != nil {
		b = binary.AppendVarint(b, int64(d.Time))
		b = appendString(b, d.Mode)
		b = appendBool(b, d.Trace)
	}
	b = appendBool(b, o.MTPriority != nil)
	if o.MTPriority != nil {
		b = binary.AppendVarint(b, int64(*o.MTPriority))
	}
	switch {
	case r.Last == Result{}:
		return append(b, resultNone)
	case r.Last.Cause == CauseUnknown:
		return appendResult(append(b, resultOnly), &r.Last)
	default:
		return append(appendResult(append(b, resultCause), &r.Last), byte(r.Last.Cause))
	}
}

// What stands before a recipient's result: journals from before there were causes have
// the first two only.
const (
	resultNone  = 0
	resultOnly  = 1
	resultCause = 2 // the cause stands behind the result
)

func appendResult(b []byte, r *Result) []byte {
	b = appendTime(b, r.Time)
	b = binary.AppendVarint(b, int64(r.Code))
	b = appendString(b, r.Platform)
	b = binary.AppendUvarint(b, uint64(r.Epoch.Term))
	b = binary.AppendUvarint(b, uint64(r.Epoch.Number))
	b = binary.AppendVarint(b, int64(r.Attempts))
	return appendTime(b, r.Next)
}

// appendHead appends what follows the fixed part.
func appendHead(b []byte, e *Envelope, rcpts []Recipient) []byte {
	b = appendEnvelope(b, e)
	b = binary.AppendUvarint(b, uint64(len(rcpts)))
	for i := range rcpts {
		b = appendRecipient(b, &rcpts[i])
	}
	return b
}

// reader takes values off a record. After the first that isn't there all are zero.
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

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) string() string { return string(r.take(r.uvarint())) }

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) bool() bool { return r.byte() != 0 }

func (r *reader) mailbox() (id routing.MailboxID) {
	copy(id[:], r.take(uint64(len(id))))
	return id
}

func (r *reader) time() time.Time {
	if n := r.varint(); n != 0 {
		return time.Unix(0, n).UTC()
	}
	return time.Time{}
}

func (r *reader) addrPort() netip.AddrPort {
	s := r.string()
	if s == "" {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(s)
	r.bad = r.bad || err != nil
	return a
}

func (r *reader) path() mail.Path {
	p, err := mail.ParsePath(r.string(), true)
	r.bad = r.bad || err != nil
	return p
}

func (r *reader) envelope(e *Envelope) {
	c := &e.Client
	c.Session, c.Listener, c.Origin = r.string(), r.string(), mail.Origin(r.byte())
	c.Peer, c.Source, c.Addr, c.Local = r.addrPort(), r.addrPort(), r.addrPort(), r.addrPort()
	c.Name, c.Helo, c.With, c.TLS = r.string(), r.string(), r.string(), r.string()
	e.From = r.path()
	o := &e.Options
	o.Body, o.Size = gosmtp.BodyType(r.string()), r.varint()
	o.RequireTLS, o.UTF8 = r.bool(), r.bool()
	o.Return, o.EnvelopeID = gosmtp.DSNReturn(r.string()), r.string()
	if r.bool() {
		s := r.string()
		o.Auth = &s
	}
	e.MessageID = r.string()
}

func (r *reader) recipient() (rc Recipient) {
	rc.Address, rc.Mailbox, rc.Agency = routing.Address(r.string()), r.mailbox(), routing.AgencyID(r.string())
	rc.State, rc.Reason, rc.To = State(r.byte()), r.string(), r.path()
	if rc.State == StateUnknown || rc.State >= numStates {
		r.bad = true
	}
	o := &rc.Options
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		o.Notify = append(o.Notify, gosmtp.DSNNotify(r.string()))
	}
	o.OriginalRecipientType, o.OriginalRecipient = gosmtp.DSNAddressType(r.string()), r.string()
	o.RequireRecipientValidSince = r.time()
	if r.bool() {
		o.DeliverBy = &gosmtp.DeliverByOptions{Time: time.Duration(r.varint()), Mode: gosmtp.DeliverByMode(r.string()), Trace: r.bool()}
	}
	if r.bool() {
		n := int(r.varint())
		o.MTPriority = &n
	}
	switch kind := r.byte(); kind {
	case resultNone:
	case resultOnly, resultCause:
		rc.Last = r.result()
		if kind == resultCause {
			rc.Last.Cause = r.cause()
		}
	default:
		r.bad = true
	}
	return rc
}

// cause takes a cause that is one: none is said by its absence.
func (r *reader) cause() Cause {
	c := Cause(r.byte())
	if c == CauseUnknown || c >= numCauses {
		r.bad = true
	}
	return c
}

func (r *reader) result() (v Result) {
	v.Time, v.Code = r.time(), int(r.varint())
	v.Platform = routing.PlatformID(r.string())
	v.Epoch = routing.Epoch{Term: uint32(r.uvarint()), Number: uint32(r.uvarint())}
	v.Attempts, v.Next = int(r.varint()), r.time()
	return v
}

// parseHead returns the message that a head tells of.
func parseHead(b []byte) (*Message, error) {
	f, rest, err := parseFixed(b)
	if err != nil {
		return nil, err
	}
	size, err := f.plainSize()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRecord, err)
	}
	m := &Message{Sequence: f.seq, Size: size}
	m.Transaction, m.Time = mail.TransactionIDOf(f.id), time.Unix(0, f.time).UTC()
	r := &reader{b: rest}
	r.envelope(&m.Envelope)
	n := r.uvarint()
	if n == 0 || n > MaxRecipients {
		r.bad = true
	}
	for ; n > 0 && !r.bad; n-- {
		m.Recipients = append(m.Recipients, r.recipient())
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: head of message %s", ErrBadRecord, m.Transaction)
	}
	return m, nil
}

// outcome is an [Outcome] as a record has it.
type outcome struct {
	id   [16]byte
	rcpt uint32
	// ended tells that the message has no recipient left whose state isn't final.
	// The record is needed as long as there is a segment from first to last, which could
	// hold a record of the message.
	ended       bool
	first, last uint32
	Outcome

	at    position // where it was written
	bytes uint16   // how much it takes up there
	file  bool     // the message's body has a file, which goes when this is on the disk
}

func appendOutcome(b []byte, o *outcome) []byte {
	b = append(b, o.id[:]...)
	b = binary.AppendUvarint(b, uint64(o.rcpt))
	b = append(b, byte(o.State))
	b = appendBool(b, o.ended)
	if o.ended {
		b = binary.AppendUvarint(b, uint64(o.first))
		b = binary.AppendUvarint(b, uint64(o.last))
	}
	b = appendString(b, cut(o.Reason, MaxText))
	b = appendResult(b, &o.Result)
	if o.Cause != CauseUnknown {
		b = append(b, byte(o.Cause))
	}
	return b
}

// parseOutcome returns the outcome that a record tells of.
func parseOutcome(b []byte) (o outcome, err error) {
	r := &reader{b: b}
	copy(o.id[:], r.take(16))
	rcpt := r.uvarint()
	o.rcpt = uint32(rcpt)
	o.State, o.ended = State(r.byte()), r.bool()
	if o.ended {
		o.first, o.last = uint32(r.uvarint()), uint32(r.uvarint())
	}
	o.Reason, o.Result = r.string(), r.result()
	if len(r.b) > 0 { // journals from before there were causes have none
		o.Cause = r.cause()
	}
	o.Transaction, o.Recipient = mail.TransactionIDOf(o.id), int(rcpt)
	if r.bad || len(r.b) > 0 || rcpt >= MaxRecipients || o.State == StateUnknown || o.State >= numStates {
		return o, fmt.Errorf("%w: outcome of message %s", ErrBadRecord, o.Transaction)
	}
	return o, nil
}

// cut returns at most n bytes of s.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
