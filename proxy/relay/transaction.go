package relay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"mailcutover/mail"

	gosmtp "github.com/emersion/go-smtp"
)

// maxPipelined is how many RCPTs go out before their answers are read: what a platform
// answers has to fit the socket buffers while we write (RFC 2920 section 3.1).
const maxPipelined = 200

// Recipient is one RCPT to be sent.
type Recipient struct {
	// To is the table's address of the mailbox on this platform.
	To mail.Path
	// Options as of RFC 3461, OriginalRecipient as it stood on the wire behind the
	// address type. What the platform did not announce is left out.
	Options gosmtp.RcptOptions
	// Group says that it is a group: it may take mail of some senders only, and its platform
	// may say that with a code that else is about us (refusal.go).
	Group bool
}

// stage is how far a transaction has come.
type stage uint8

const (
	stageOpened  stage = iota // nothing sent
	stageMail                 // MAIL accepted
	stageRefused              // MAIL refused
	stageBody                 // 354 seen
	stageFlushed              // all of the body but its last line end is written
	stageEnded                // connection given back or closed
)

// Transaction is one message on its way to the platform. It belongs to one goroutine. If
// the context of its latest call ends, it fails, also between calls.
//
// Between Rcpts and Data the pool may give its connection to others (Limits.MaxPause). The
// next call then waits for one as Open does, and asks the platform for the same recipients
// again; unless it takes all of them, the transaction fails.
type Transaction struct {
	pool     *Pool
	conn     *conn // nil once ended
	reused   bool
	host     string
	client   mail.Client
	from     mail.Path
	opts     *gosmtp.MailOptions
	utf8     bool // MAIL was sent with SMTPUTF8
	ascii    bool // it came with SMTPUTF8 and was sent without: envelope and header must be ASCII
	stage    stage
	refusal  error // of MAIL
	accepted int
	failure  error          // that ended the transaction before the dot
	kept     []Recipient    // those accepted, as they were asked for
	names    map[string]int // of kept; nil before a second one is asked for
	given    []int          // for each accepted recipient of the caller the one of kept that speaks for it
	together bool           // DATA goes with the last RCPT, where it can
	data     dataAnswer     // to a DATA that went so
	body     body
	replies  []string // texts of the answers to the dot

	pausing     bool          // paused, as far as the owner knows
	paused      time.Duration // on this connection, before this pause
	pausedSince time.Time     // earlier than it began, by paused; read under Pool.mu
	place       int           // in Pool.paused; negative: the connection is gone. Guarded by Pool.mu

	one struct { // room for the common case of one answer
		errs    [1]error
		replies [1]string
		given   [1]int
	}
}

// Host returns the host, as configured, that the transaction talks or talked to.
func (t *Transaction) Host() string { return t.host }

// Replies returns the texts of the answers to the dot, for logs: one for SMTP, one for each
// accepted recipient for LMTP, fewer if some are missing.
func (t *Transaction) Replies() []string { return t.replies }

// take gets the transaction a connection.
func (t *Transaction) take(ctx context.Context) error {
	p := t.pool
	start := time.Now()
	c, err := p.acquire(ctx, p.identityOf(t.client), false)
	p.obs.Waited(time.Since(start), err)
	if err != nil {
		return err
	}
	t.conn, t.host, t.reused = c, c.host.name, !c.idleSince.IsZero()
	return nil
}

// Rcpts asks the platform for recipients; the first call sends MAIL before them. It
// returns one error, or nil, for each. The platform is asked once for recipients with the
// same To: see duplicate.go. The recipients must not be changed until the transaction has
// ended.
//
// Errors are [PlatformReply], [ConnectionError] after which the transaction has ended, or
// wrap one of ErrLacks8BitMIME, ErrLacksSMTPUTF8, ErrLacksRequireTLS, ErrTooLarge and
// ErrNeedsOperator. If MAIL
// was refused all recipients have that answer, now and in further calls.
func (t *Transaction) Rcpts(ctx context.Context, rcpts []Recipient) []error {
	errs := make([]error, len(rcpts))
	if len(rcpts) == 0 {
		return errs
	}
	if t.unpause() {
		if err := t.repeat(ctx); err != nil {
			return fill(errs, err)
		}
	}
	switch t.stage {
	case stageOpened, stageMail:
	case stageRefused:
		return fill(errs, t.refusal)
	default:
		return fill(errs, t.outOfOrder("RCPT"))
	}
	asked, speaker := t.merge(rcpts)
	if len(asked) == 0 {
		t.give(nil, speaker, len(t.kept))
		t.pause()
		return errs
	}
	errs = errs[:len(asked)]
	if err := t.ask(ctx, asked, errs); err != nil {
		return spread(errs, speaker, err)
	}
	if slices.ContainsFunc(errs, isFinal) {
		if err := t.confirm(); err != nil {
			// None of the answers can be trusted.
			err = t.fail(err)
			return spread(fill(errs, err), speaker, err)
		}
	}
	if t.stage == stageMail {
		t.give(errs, speaker, len(t.kept))
		t.keep(asked, errs)
		t.pause()
	}
	return spread(errs, speaker, t.refusal)
}

// ask brings what is left of MAIL and RCPT to the platform, if need be to another host. An
// error has ended the transaction; errs has it as well.
func (t *Transaction) ask(ctx context.Context, rcpts []Recipient, errs []error) error {
	for attempt := 0; ; attempt++ {
		retry, err := t.send(ctx, rcpts, errs)
		if err == nil {
			return nil
		}
		// Before MAIL is answered nothing is lost by beginning again: on a fresh
		// connection if an idle one had died, else on another host.
		if retry && attempt <= len(t.pool.hosts) && t.conn.interrupted.Load() == nil {
			if err = t.reconnect(ctx, err); err == nil {
				continue
			}
		} else {
			err = t.fail(err)
		}
		for i := range errs {
			if errs[i] == nil || errs[i] == errPending || isFinal(errs[i]) {
				errs[i] = err
			}
		}
		return err
	}
}

// reconnect begins again on another connection, in the place of this one.
func (t *Transaction) reconnect(ctx context.Context, cause error) error {
	old, p := t.conn, t.pool
	old.cut()
	if t.reused {
		p.obs.Closed(t.host, "stale")
	} else {
		p.obs.Closed(t.host, "error")
		p.failed(old.host, p.connectionError(old.host, t.doing(), cause))
	}
	c, err := p.connect(ctx, old.identity, false)
	if err != nil {
		t.end()
		t.failure = err
		p.freeSlot()
		return err
	}
	t.conn, t.host, t.reused = c, c.host.name, false
	return nil
}

// errPending marks a recipient that has no answer yet.
var errPending = errors.New("no answer yet")

// send sends what is to be sent and reads the answers. An error is one of the connection's;
// retry says that it came before MAIL was answered, so that another connection may do.
func (t *Transaction) send(ctx context.Context, rcpts []Recipient, errs []error) (retry bool, err error) {
	fill(errs, errPending)
	c, first := t.conn, t.stage == stageOpened
	if err := c.watch(ctx); err != nil {
		return false, err
	}
	if first {
		c.messages++
		if err := t.needs(); err != nil {
			t.refuse(err)
			fill(errs, t.refusal)
			return false, nil
		}
		t.utf8 = t.wantsUTF8(rcpts)
		t.ascii = t.opts.UTF8 && !t.utf8
	}
	for len(rcpts) > 0 || first {
		n, forwards := 0, 0
		c.out = c.out[:0]
		if first {
			if t.pool.ep.Identity == IdentityXFORWARD {
				c.out, forwards = appendXForward(c.out, c.caps.xforward, t.client)
			}
			c.out = t.appendMail(c.out)
		}
		for !first && n == 0 || c.caps.Pipelining && n < min(len(rcpts), maxPipelined) && len(c.out) < bufferBytes/2 {
			if errs[n] = t.needsRcpt(rcpts[n]); errs[n] == nil {
				errs[n] = errPending
				c.out = t.appendRcpt(c.out, rcpts[n])
			}
			n++
		}
		data := t.together && c.caps.Pipelining && n == len(rcpts) && (t.accepted > 0 || slices.Contains(errs[:n], errPending))
		if data {
			c.out = append(c.out, "DATA\r\n"...)
		}
		if err := c.flush(); err != nil {
			return first && worthRetry(err), err
		}
		if first {
			first = false
			if retry, err := t.readMail(forwards); err != nil {
				return retry, err
			}
		}
		if err := t.readRcpts(rcpts[:n], errs[:n]); err != nil {
			return false, err
		}
		if data {
			if err := t.readData(); err != nil {
				return false, err
			}
		}
		if t.stage == stageRefused {
			fill(errs, t.refusal)
			return false, nil
		}
		rcpts, errs = rcpts[n:], errs[n:]
	}
	return false, nil
}

// readMail reads the answer to MAIL, and those to XFORWARD before it.
func (t *Transaction) readMail(forwards int) (retry bool, err error) {
	c := t.conn
	for range forwards {
		code, err := c.read(t.pool.ep.Timeouts.Command)
		if err != nil {
			return worthRetry(err), err
		}
		if code == 421 {
			return true, t.pool.refused(c, "XFORWARD", code)
		}
		if code/100 != 2 {
			t.pool.log.Warn("platform refuses XFORWARD", "peer", t.host, "code", code)
		}
	}
	code, err := c.read(t.pool.ep.Timeouts.Mail)
	t.pool.obs.Answered(t.host, "MAIL", code)
	switch {
	case err != nil:
		return worthRetry(err), err
	case code == 421:
		return true, t.pool.refused(c, "MAIL", code)
	case code/100 == 2:
		t.stage, c.worked = stageMail, true
		return false, nil
	case code/100 == 3:
		return false, fmt.Errorf("%w: MAIL answered with %d", ErrProtocol, code)
	default:
		t.refuse(t.pool.refused(c, "MAIL", code))
		return false, nil
	}
}

// readRcpts reads an answer for each recipient that was sent.
func (t *Transaction) readRcpts(rcpts []Recipient, errs []error) error {
	c := t.conn
	for i, pending := range errs {
		if pending != errPending {
			continue
		}
		code, err := c.read(t.pool.ep.Timeouts.Rcpt)
		if err != nil {
			return err
		}
		if t.stage != stageRefused {
			t.pool.obs.Answered(t.host, "RCPT", code)
		}
		switch {
		case code == 421:
			return t.pool.refused(c, "RCPT", code)
		case code/100 == 3, code/100 == 2 && t.stage == stageRefused:
			return fmt.Errorf("%w: RCPT answered with %d", ErrProtocol, code)
		case code/100 == 2:
			errs[i] = nil
			t.accepted++
			c.trusted = true
		default:
			r := t.pool.refused(c, "RCPT", code)
			if r.Ours && rcpts[i].Group && c.trusted && refusesSender(r.Reply) {
				r.Ours = false
			}
			errs[i] = r
		}
	}
	return nil
}

// Data asks the platform to take the message. An error is a [PlatformReply], after which the
// transaction can be aborted, or a [ConnectionError], after which it has ended.
func (t *Transaction) Data(ctx context.Context) error {
	if t.unpause() {
		if err := t.repeat(ctx); err != nil {
			return err
		}
	}
	if t.stage != stageMail || t.accepted == 0 {
		return t.outOfOrder("DATA")
	}
	c := t.conn
	err := c.watch(ctx)
	code := 0
	if err == nil {
		code, err = c.command("DATA", t.pool.ep.Timeouts.Data)
		t.pool.obs.Answered(t.host, "DATA", code)
	}
	switch {
	case err != nil:
	case code == 421:
		err = t.pool.refused(c, "DATA", code)
	case code/100 == 3:
		t.stage = stageBody
		c.out = c.out[:0]
		t.body = body{lineStart: true}
		return nil
	case code/100 == 2:
		err = fmt.Errorf("%w: DATA answered with %d", ErrProtocol, code)
	default:
		r := t.pool.refused(c, "DATA", code)
		if !isFinal(r) {
			return r
		}
		// In a shifted dialogue the platform reads the question as the body: then its
		// answer is no answer to it, and no dot follows.
		if err = t.confirm(); err == nil {
			return r
		}
	}
	return t.fail(err)
}

// Abort ends the transaction, if it has not ended yet, so that the platform has no message
// of it: by RSET before a body was begun, else by a reset of the connection. It does
// nothing after Dot, after an error that ended the transaction, and the second time.
func (t *Transaction) Abort() {
	if t.unpause() {
		t.end()
		return
	}
	c := t.conn
	switch t.stage {
	case stageEnded:
		return
	case stageOpened, stageRefused:
		t.end()
		t.pool.put(c)
	case stageMail:
		t.end()
		if c.interrupted.Load() == nil {
			if code, err := c.command("RSET", t.pool.ep.Timeouts.Reset); err == nil && code/100 == 2 {
				t.pool.put(c)
				return
			}
		}
		t.pool.discard(c, "abort")
	default:
		t.end()
		t.pool.discard(c, "abort")
	}
}

// end lets go of the connection.
func (t *Transaction) end() {
	t.conn, t.stage = nil, stageEnded
}

// fail closes the connection after err and ends the transaction, before the dot.
func (t *Transaction) fail(err error) error {
	e := t.pool.connectionError(t.conn.host, t.doing(), err)
	c := t.conn
	t.end()
	t.failure = e
	t.pool.lost(c, e)
	return e
}

// doing names the present stage for errors.
func (t *Transaction) doing() string {
	switch t.stage {
	case stageOpened:
		return "MAIL"
	case stageMail:
		return "RCPT or DATA"
	default:
		return "body"
	}
}

func (t *Transaction) outOfOrder(what string) error {
	if t.failure != nil {
		return t.failure
	}
	return &ConnectionError{Platform: t.pool.ep.Platform, Host: t.host, Doing: what, Err: ErrState}
}

// worthRetry reports whether another connection may do better: not after a timeout, which the
// sender will not wait for twice, nor after the context's end.
func worthRetry(err error) bool {
	return !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

func fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}
