package relay

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"mailcutover/mail"
)

// body is the state of a message between two calls of Write.
type body struct {
	lineStart bool // the next byte begins a line
	cr        bool // the last byte was a CR
	sent      bool // something of the body went to the connection or is held back
	size      int64

	pastHeader bool // the empty line was seen; only kept where the header must be ASCII
	line       int  // bytes of the line so far; likewise
}

// Write sends body bytes with CRLF line ends, cut anywhere; it stuffs dots (RFC 5321
// section 4.5.2) and keeps at most 32 KiB. It must follow Data. An error ends the transaction: it
// is a [ConnectionError], which wraps [ErrBareLineEnd] if the content was the reason, or
// a [PlatformReply] if the platform refused the message before its end, or it wraps
// [ErrTooLarge] for a message beyond Endpoint.MaxSize, whatever size was declared, or
// [ErrLacksSMTPUTF8] for a header beyond ASCII that the platform doesn't take.
func (t *Transaction) Write(p []byte) (int, error) {
	if t.stage != stageBody {
		return 0, t.outOfOrder("body")
	}
	c, b := t.conn, &t.body
	total := len(p)
	if b.size += int64(total); t.pool.ep.MaxSize > 0 && b.size > t.pool.ep.MaxSize {
		return 0, t.tooLarge()
	}
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		line := p
		if i >= 0 {
			line = p[:i+1]
		}
		if !b.wellFormed(line) {
			return 0, t.fail(ErrBareLineEnd)
		}
		if t.ascii && !b.pastHeader && !b.asciiHeader(line) {
			return 0, t.unfit(fmt.Errorf("its header is beyond ASCII: %w", ErrLacksSMTPUTF8))
		}
		if b.lineStart && line[0] == '.' {
			if err := t.collect([]byte(".")); err != nil {
				return 0, err
			}
		}
		if len(line) <= cap(c.out)-len(c.out) {
			c.out = append(c.out, line...)
		} else if err := t.collect(line); err != nil {
			return 0, err
		}
		b.lineStart = i >= 0
		p = p[len(line):]
	}
	b.sent = b.sent || total > 0
	return total, nil
}

// tooLarge ends the transaction in the middle of a body that is longer than is configured.
func (t *Transaction) tooLarge() error {
	return t.unfit(fmt.Errorf("more than %d octets: %w", t.pool.ep.MaxSize, ErrTooLarge))
}

// unfit ends the transaction in the middle of a body that the platform doesn't take. Nothing
// of it is stored there: the dot is never sent.
func (t *Transaction) unfit(why error) error {
	c := t.conn
	t.failure = fmt.Errorf("platform %s at %s: %w", t.pool.ep.Platform, t.host, why)
	t.end()
	t.pool.discard(c, "abort")
	return t.failure
}

// asciiHeader reports whether line, a line of the header or a part of one, is ASCII, and
// notes the header's end.
func (b *body) asciiHeader(line []byte) bool {
	b.line += len(line)
	if line[len(line)-1] == '\n' {
		b.pastHeader = b.line == len("\r\n")
		b.line = 0
	}
	for _, c := range line {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// wellFormed reports whether line, a line or a part of one, has no CR without LF and no
// LF without CR.
func (b *body) wellFormed(line []byte) bool {
	n := len(line)
	if line[n-1] == '\n' {
		n--
		if n > 0 && line[n-1] == '\r' {
			n--
		} else if n > 0 || !b.cr {
			return false
		}
		if b.cr && len(line) > 1 {
			return false
		}
		b.cr = false
	} else {
		if b.cr {
			return false
		}
		if b.cr = line[n-1] == '\r'; b.cr {
			n--
		}
	}
	return bytes.IndexByte(line[:n], '\r') < 0
}

// collect appends p to the buffer, which it writes whenever it is full.
func (t *Transaction) collect(p []byte) error {
	c := t.conn
	for {
		n := copy(c.out[len(c.out):cap(c.out)], p)
		c.out = c.out[:len(c.out)+n]
		p = p[n:]
		if len(p) == 0 {
			return nil
		}
		if err := t.drain(); err != nil {
			return err
		}
	}
}

// drain writes the buffer but for a line end, or the first half of one, at its end: the
// last one belongs to the dot.
func (t *Transaction) drain() error {
	c := t.conn
	n := len(c.out)
	keep := 0
	if bytes.HasSuffix(c.out, []byte("\r\n")) {
		keep = 2
	} else if n > 0 && c.out[n-1] == '\r' {
		keep = 1
	}
	if n > keep {
		if err := c.write(c.out[:n-keep]); err != nil {
			return t.refusedEarly(err)
		}
	}
	c.out = c.out[:copy(c.out, c.out[n-keep:n])]
	return nil
}

// refusedEarly looks, after a failed write, for an answer that the platform gave before
// it closed the connection: "too large" is better passed on than tried again for days.
func (t *Transaction) refusedEarly(err error) error {
	c := t.conn
	if c.interrupted.Load() == nil {
		c.raw.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if code, rerr := c.reply.read(); rerr == nil && code/100 >= 4 {
			r := t.pool.refused(c, "body", code)
			return t.early(r)
		}
	}
	return t.fail(err)
}

// early ends the transaction with a refusal that came before the dot.
func (t *Transaction) early(r *PlatformReply) error {
	if r.Reply.Code == 421 {
		return t.fail(r)
	}
	c := t.conn
	t.end()
	t.failure = r
	t.pool.obs.Answered(t.host, ".", r.Reply.Code)
	t.pool.discard(c, "error")
	return r
}

// Flush writes what is left of the body, but not its last line end and not the dot. When it
// returns nil all that the message still needs is Dot; of the body a packet at most waits
// for that in the kernel. Errors are those of Write.
func (t *Transaction) Flush(ctx context.Context) error {
	if t.stage != stageBody {
		return t.outOfOrder("end of the body")
	}
	c := t.conn
	if err := c.watch(ctx); err != nil {
		return t.fail(err)
	}
	if t.body.cr {
		return t.fail(ErrBareLineEnd)
	}
	// The kernel keeps the last packet until the dot is written, for 200 ms at most, so that
	// both are one: the platform wakes up once. What is reset until then never had a dot.
	c.raw.more = true
	err := t.drain()
	c.raw.more = false
	if err != nil {
		return err
	}
	if c.stale() {
		// An answer before the question: a refusal, the end of the connection, or one
		// that would be taken for the answer to the dot.
		code, err := c.read(t.pool.ep.Timeouts.Reset)
		switch {
		case err != nil:
			return t.fail(err)
		case code/100 >= 4:
			return t.early(t.pool.refused(c, "body", code))
		default:
			return t.fail(fmt.Errorf("%w: answer %d before the end of the message", ErrProtocol, code))
		}
	}
	t.stage = stageFlushed
	return nil
}

// Dot sends the final dot, as a write of its own, and reads what became of the message: one
// error, or nil, with SMTP, and with LMTP one for each accepted recipient, in the order of
// the calls of Rcpts. It must follow Flush, and it ends the transaction.
//
// Errors are [PlatformReply] or [ConnectionError]. An error for which errors.Is(err,
// ErrInDoubt) is a message of which nobody knows whether the platform has it; after any
// other, it has not. The end of ctx before the write of the dot means that none was sent,
// after it, that the message is in doubt.
func (t *Transaction) Dot(ctx context.Context) []error { return t.perRecipient(t.dot(ctx)) }

// dot is Dot with an answer for each recipient that the platform was asked for.
func (t *Transaction) dot(ctx context.Context) []error {
	n := 1
	if t.pool.ep.Protocol == ProtocolLMTP {
		n = t.accepted
	}
	errs := t.one.errs[:]
	if n > 1 {
		errs = make([]error, n)
	}
	if t.stage != stageFlushed {
		return fill(errs, t.outOfOrder("final dot"))
	}
	c := t.conn
	if err := c.watch(ctx); err != nil {
		return fill(errs, t.fail(err))
	}
	dot := "\r\n.\r\n"
	if !t.body.sent {
		dot = ".\r\n"
	}
	if c.stale() { // whatever it is, it would be taken for the answer to the dot
		return fill(errs, t.fail(fmt.Errorf("%w: answer before the end of the message", ErrProtocol)))
	}
	before := c.raw.written
	if err := c.write(append(c.out[:0], dot...)); err != nil {
		if c.raw.written == before { // not a byte of it
			return fill(errs, t.fail(err))
		}
		return fill(errs, t.inDoubt(err))
	}
	t.replies = t.one.replies[:0]
	var ended error
	for i := range errs {
		code, err := c.read(t.pool.ep.Timeouts.Dot)
		t.pool.obs.Answered(t.host, ".", code)
		if err == nil && (code/100 == 3) {
			err = fmt.Errorf("%w: final dot answered with %d", ErrProtocol, code)
		}
		if err != nil {
			fill(errs[i:], t.inDoubt(err))
			return errs
		}
		t.replies = append(t.replies, mail.CleanText(c.reply.text, maxReplyText))
		switch {
		case code/100 == 2:
		case code == 421:
			errs[i] = t.pool.connectionError(c.host, "final dot", t.pool.refused(c, ".", code))
			ended = errs[i]
		default:
			errs[i] = t.pool.refused(c, ".", code)
		}
	}
	if ended == nil && slices.ContainsFunc(errs, isFinal) && c.another(t.pool.ep.Timeouts.Reset) {
		// One of these answers was to something else.
		return fill(errs, t.inDoubt(fmt.Errorf("%w: more answers than questions", ErrProtocol)))
	}
	t.end()
	if ended != nil {
		t.pool.lost(c, ended)
		return errs
	}
	t.pool.put(c)
	return errs
}

// inDoubt ends the transaction after its dot was, possibly, sent.
func (t *Transaction) inDoubt(err error) error {
	c := t.conn
	e := t.pool.connectionError(c.host, "final dot", err)
	e.InDoubt = true
	t.end()
	t.pool.lost(c, e)
	return e
}

// Finish is Flush and Dot in one. An error of Flush is returned as Dot would return it.
func (t *Transaction) Finish(ctx context.Context) []error {
	if err := t.Flush(ctx); err != nil {
		n := 1
		if t.pool.ep.Protocol == ProtocolLMTP {
			n = max(len(t.given), 1)
		}
		return fill(make([]error, n), err)
	}
	return t.Dot(ctx)
}
