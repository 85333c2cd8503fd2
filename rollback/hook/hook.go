package hook

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"mailcutover/routing"
)

// Kind is what a hook does on its platform.
type Kind string

const (
	Close      Kind = "close"       // end sessions, stop logins and delivery
	Open       Kind = "open"        // allow them again
	ForwardOn  Kind = "forward-on"  // mail that the platform delivers by itself goes to the other one
	ForwardOff Kind = "forward-off" // it no longer does
)

// Kinds lists every kind.
func Kinds() []Kind { return []Kind{Close, Open, ForwardOn, ForwardOff} }

// Undo returns the kind that takes back what k did.
func (k Kind) Undo() Kind {
	switch k {
	case Close:
		return Open
	case Open:
		return Close
	case ForwardOn:
		return ForwardOff
	case ForwardOff:
		return ForwardOn
	}
	return ""
}

// Defaults of a [Hook].
const (
	DefaultTimeout  = 2 * time.Minute
	DefaultAttempts = 3
	DefaultPause    = 5 * time.Second
)

// ErrFailed is wrapped by the error of a hook that didn't do all that it was asked for.
var ErrFailed = errors.New("hook failed")

// Hook is one hook of a platform. Exactly one of Command and URL is set.
type Hook struct {
	Platform routing.PlatformID
	Kind     Kind

	// Command is a program, by its whole path, and its arguments.
	Command []string

	// URL takes the lines as the body of a POST and answers them with status 200.
	URL string
	// Token, unless empty, is sent as bearer token.
	Token string
	// Client is for the URL; nil: http.DefaultTransport without redirects.
	Client *http.Client

	Timeout  time.Duration // of one attempt; 0: DefaultTimeout
	Attempts int           // in all; 0: DefaultAttempts
	Pause    time.Duration // before the second attempt, doubled for each later one; 0: DefaultPause
}

// String names the hook for people, without the arguments and the token.
func (h *Hook) String() string { return string(h.Kind) + " of platform " + string(h.Platform) }

// Mailbox is what a hook is told of a mailbox.
type Mailbox struct {
	ID           routing.MailboxID `json:"mailbox"`
	Address      routing.Address   `json:"address"`                 // on the hook's platform
	Login        string            `json:"login,omitempty"`         // there
	OtherAddress routing.Address   `json:"other_address,omitempty"` // on the other platform
	ForwardTo    routing.Address   `json:"forward_to,omitempty"`    // of forward-on: where a forward has to go, and is looked for afterwards
}

// Call is what a hook is asked to do, and for what.
type Call struct {
	Operation routing.OperationID
	Agency    routing.AgencyID
	Mailboxes []Mailbox
}

// Result is what became of one mailbox.
type Result struct {
	ID    routing.MailboxID `json:"mailbox"`
	OK    bool              `json:"ok"`
	Error string            `json:"error,omitempty"` // why not, in the hook's words, cut and printable
}

// Receipt is what a hook did.
type Receipt struct {
	Hook     Kind               `json:"hook"`
	Platform routing.PlatformID `json:"platform"`
	Done     int                `json:"done"`             // mailboxes that it said are done
	Failed   []Result           `json:"failed,omitempty"` // the others, in order
	Attempts int                `json:"attempts"`
	Started  time.Time          `json:"started"`
	Ended    time.Time          `json:"ended"`
	Output   string             `json:"output,omitempty"` // end of the last standard error, or of the answer that made no sense
}

// Run calls the hook until every mailbox is done, or its attempts are used up. The error
// is nil only if all are done; the receipt says how far it came in any case.
func (h *Hook) Run(ctx context.Context, c Call) (Receipt, error) {
	r := Receipt{Hook: h.Kind, Platform: h.Platform, Started: time.Now()}
	left := c.Mailboxes
	pause := cmp.Or(h.Pause, DefaultPause)
	for {
		r.Attempts++
		results, output, err := h.attempt(ctx, c, left, r.Attempts)
		r.Output, r.Failed = output, nil
		var again []Mailbox
		for i, m := range left {
			if results[i].OK && err == nil {
				r.Done++
				continue
			}
			if results[i].OK { // what failed as a whole is asked again as a whole
				results[i] = Result{ID: m.ID, Error: "it said that this is done, and then failed"}
			}
			again = append(again, m)
			r.Failed = append(r.Failed, results[i])
		}
		left = again
		r.Ended = time.Now()
		switch {
		case err == nil && len(left) == 0:
			return r, nil
		case err == nil:
			err = fmt.Errorf("%d of %d mailboxes, the first %s: %s", len(left), len(c.Mailboxes), r.Failed[0].ID, r.Failed[0].Error)
		}
		err = fmt.Errorf("%s for agency %s: %w: %w", h, c.Agency, ErrFailed, err)
		if r.Attempts >= cmp.Or(h.Attempts, DefaultAttempts) {
			return r, err
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return r, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// attempt asks once. There is a result for each mailbox, in order; an error is about the
// whole attempt.
func (h *Hook) attempt(ctx context.Context, c Call, boxes []Mailbox, number int) (results []Result, output string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(h.Timeout, DefaultTimeout), fmt.Errorf("no end within %s", cmp.Or(h.Timeout, DefaultTimeout)))
	defer cancel()
	var question bytes.Buffer
	if err := writeQuestion(&question, h, c, boxes, number); err != nil {
		return unanswered(boxes), "", err
	}
	var answer []byte
	if len(h.Command) > 0 {
		answer, output, err = h.run(ctx, c, &question)
	} else {
		answer, output, err = h.post(ctx, &question)
	}
	results, bad := readAnswer(answer, boxes)
	if bad != nil && output == "" {
		output = printable(answer)
	}
	return results, output, errors.Join(err, bad)
}
