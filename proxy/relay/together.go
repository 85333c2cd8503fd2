package relay

import (
	"context"
	"fmt"
	"slices"
)

// dataAnswer is what came of a DATA that was sent before its RCPTs were answered.
type dataAnswer struct {
	read    bool
	refusal error // nil: 354
}

// RcptsData is Rcpts and, if the platform took a recipient, Data: for a message that is at
// hand, so that nobody waits between the two. A platform that announces PIPELINING gets
// all of it at once (RFC 2920 section 3.1). It has to be the transaction's first call.
//
// errs are those of Rcpts. err is that of Data; it is nil also if no recipient was taken,
// and then the transaction can be aborted, as after a refusal.
func (t *Transaction) RcptsData(ctx context.Context, rcpts []Recipient) (errs []error, err error) {
	errs = make([]error, len(rcpts))
	if len(rcpts) == 0 || t.stage != stageOpened {
		err = t.outOfOrder("MAIL, RCPT and DATA")
		return fill(errs, err), err
	}
	t.together = true
	asked, speaker := t.merge(rcpts)
	errs = errs[:len(asked)]
	if err := t.ask(ctx, asked, errs); err != nil {
		return spread(errs, speaker, err), err
	}
	// A 354 in its place shows that the answers before it were in theirs.
	refusal := t.data.refusal
	if (t.stage == stageMail || t.stage == stageRefused) && (slices.ContainsFunc(errs, isFinal) || isFinal(refusal)) {
		if err := t.confirm(); err != nil {
			err = t.fail(err)
			return spread(fill(errs, err), speaker, err), err
		}
	}
	if t.stage == stageMail || t.stage == stageBody {
		t.give(errs, speaker, 0)
		t.keep(asked, errs)
	}
	errs = spread(errs, speaker, t.refusal)
	switch {
	case t.stage != stageMail, t.accepted == 0:
		return errs, nil
	case t.data.read:
		return errs, refusal
	default:
		return errs, t.Data(ctx)
	}
}

// readData reads the answer to a DATA that was sent with its RCPTs. An error is one of the
// connection's.
func (t *Transaction) readData() error {
	c := t.conn
	code, err := c.read(t.pool.ep.Timeouts.Data)
	t.pool.obs.Answered(t.host, "DATA", code)
	t.data.read = true
	switch {
	case err != nil:
		return err
	case code == 421:
		return t.pool.refused(c, "DATA", code)
	case code/100 == 2, code/100 == 3 && t.stage == stageRefused:
		return fmt.Errorf("%w: DATA answered with %d", ErrProtocol, code)
	case code/100 != 3:
		t.data.refusal = t.pool.refused(c, "DATA", code)
	case t.accepted == 0:
		// It waits for a message for nobody, as RFC 2920 section 3.1 allows. The dot that
		// would end it is one that the ledger knows nothing of: none is sent.
		t.end()
		t.pool.discard(c, "abort")
	default:
		t.stage = stageBody
		c.out = c.out[:0]
		t.body = body{lineStart: true}
	}
	return nil
}
