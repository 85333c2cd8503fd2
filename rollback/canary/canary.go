package canary

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"mailcutover/routing"
)

// Trial says what is tried.
type Trial struct {
	Agency   routing.AgencyID
	Platform routing.PlatformID // that has the agency now
	Node     string             // host name of this node, for the message

	Address   string   // of the canary's mailbox, as the table has it; empty: no message is sent
	Login     string   // of it, as a client gives it; empty: nobody logs in
	Protocols []string // by which it logs in; none, though it has a login, is a failure
}

// IMAP is the protocol by which the mailbox is looked into. Of [Trial.Protocols] it is the last to be tried.
const IMAP = "imap"

// Delivery is where a message went.
type Delivery struct {
	Platform routing.PlatformID
	Host     string
	Refused  string // what the platform said, if it took it for nobody
}

// Visit is what a login came to.
type Visit struct {
	Platform routing.PlatformID // that let it in; empty: it isn't known
	Message  Sight
}

// Sight is what was seen of the message in the canary's mailbox.
type Sight struct {
	Looked bool   // the mailbox was looked into
	Found  bool   // it is in the INBOX
	Text   string // where it is instead, or what became of it then; may be empty
}

// Ways are how mail and logins come through this node. Each ends soon after its context.
type Ways struct {
	// Send hands a message of the null sender to one of this node's listeners. nil: it was
	// taken.
	Send func(ctx context.Context, to string, text []byte) error

	// Delivered looks once where a message went; ok is false while it went nowhere.
	Delivered func(ctx context.Context, messageID string) (d Delivery, ok bool, err error)

	// Login logs in by a protocol through one of this node's listeners. By IMAP it looks into the INBOX
	// until the message is there, or ctx is about to end, and deletes it again; an empty messageID is
	// not looked for. With an error the Visit says how far it came.
	Login func(ctx context.Context, protocol, messageID string) (Visit, error)

	// Look looks into the mailbox on the platform itself, likewise. It is for a canary that doesn't log in by
	// IMAP. nil: that platform's mailboxes can't be read, and nobody looks.
	Look func(ctx context.Context, messageID string) (Sight, error)
}

// Result is what a trial came to.
type Result struct {
	Agency routing.AgencyID `json:"agency"`
	OK     bool             `json:"ok"`
	Mail   string           `json:"mail,omitempty"`  // what came of the message, for people; empty: none was sent
	Login  string           `json:"login,omitempty"` // what came of the logins, for people; empty: none was tried
	Ended  time.Time        `json:"ended"`

	// Parts are what was tried, one by one, in this order.
	Parts []Part `json:"parts,omitempty"`
}

// Part is one thing that was tried.
type Part struct {
	Name string `json:"name"` // [Mail], [Mailbox], or a login's protocol
	OK   bool   `json:"ok"`
}

// Names of parts that are no logins.
const (
	Mail    = "mail"    // the message is on the right platform
	Mailbox = "mailbox" // and in the mailbox there
)

// Text is what came of it, in one line.
func (r *Result) Text() string {
	if r.Mail == "" || r.Login == "" {
		return r.Mail + r.Login
	}
	return "mail: " + r.Mail + "; login: " + r.Login
}

// part notes one thing that was tried.
func (r *Result) part(name string, ok bool) {
	r.Parts = append(r.Parts, Part{name, ok})
	r.OK = r.OK && ok
}

// lookPause is the time between two looks at where the message went.
const lookPause = 100 * time.Millisecond

// Run tries the message, and then the logins, one after the other. It never lasts much longer than ctx. Half
// of the time is the logins', so that a message which doesn't arrive says nothing about them; each login
// has its share of what is left.
func Run(ctx context.Context, t Trial, w Ways) Result {
	r := Result{Agency: t.Agency, OK: true}
	id := ""
	if t.Address != "" {
		id = fmt.Sprintf("<canary.%s@%s>", uuid.NewString(), t.Node)
		part, cancel := share(ctx, 2)
		text, err := t.mail(part, id, w)
		cancel()
		r.part(Mail, err == nil)
		if r.Mail = text; err != nil {
			r.Mail, id = err.Error(), ""
		}
	}
	byIMAP := false
	if t.Login != "" {
		protocols := inOrder(t.Protocols)
		var texts []string
		if len(protocols) == 0 {
			r.OK = false
			texts = append(texts, fmt.Sprintf("there is no protocol by which this node and platform %s take logins", t.Platform))
		}
		for i, protocol := range protocols {
			part, cancel := share(ctx, len(protocols)-i)
			text, sight, err := t.login(part, protocol, id, w)
			cancel()
			if err != nil {
				text = err.Error()
			}
			texts = append(texts, text)
			r.part(protocol, err == nil)
			if protocol == IMAP {
				byIMAP = true
				if id != "" {
					r.seen(&t, sight, nil)
				}
			}
		}
		r.Login = strings.Join(texts, "; ")
	}
	if id != "" && !byIMAP && w.Look != nil {
		sight, err := w.Look(ctx, id)
		r.seen(&t, sight, err)
	}
	r.Ended = time.Now()
	return r
}

// seen notes what was seen of the message in its mailbox. Where a login by IMAP failed before anybody could look,
// that is what failed.
func (r *Result) seen(t *Trial, s Sight, err error) {
	switch {
	case err != nil:
		r.part(Mailbox, false)
		r.Mail += fmt.Sprintf(", and whether it is in its mailbox can't be seen: %v", err)
	case !s.Looked:
	case !s.Found:
		r.part(Mailbox, false)
		r.Mail += ", but not in the INBOX of its mailbox on " + string(t.Platform)
		if s.Text != "" {
			r.Mail += ": " + s.Text
		}
	default:
		r.part(Mailbox, true)
		r.Mail += ", and in its mailbox"
		if s.Text != "" {
			r.Mail += "; " + s.Text
		}
	}
}

// inOrder returns protocols with IMAP at their end.
func inOrder(all []string) []string {
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b string) int {
		switch {
		case a == b:
			return 0
		case a == IMAP:
			return 1
		case b == IMAP:
			return -1
		}
		return 0
	})
	return out
}

// share returns ctx for one of n parts of the time that it leaves.
func share(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok && n > 1 {
		return context.WithTimeout(ctx, time.Until(end)/time.Duration(n))
	}
	return context.WithCancel(ctx)
}

// mail sends the message and waits until it is on a platform.
func (t *Trial) mail(ctx context.Context, id string, w Ways) (string, error) {
	began := time.Now()
	if err := w.Send(ctx, t.Address, t.message(id, began)); err != nil {
		return "", err
	}
	for {
		d, ok, err := w.Delivered(ctx, id)
		switch {
		case err != nil && ctx.Err() == nil:
			return "", fmt.Errorf("look where the message for %s went: %w", t.Address, err)
		case ok && d.Refused != "":
			return "", fmt.Errorf("platform %s, %s, refused the message for %s: %s", d.Platform, d.Host, t.Address, d.Refused)
		case ok && d.Platform != t.Platform:
			return "", fmt.Errorf("the message for %s went to platform %s, %s: want %s", t.Address, d.Platform, d.Host, t.Platform)
		case ok:
			return fmt.Sprintf("the message for %s is on %s, %s, after %s", t.Address, d.Platform, d.Host, time.Since(began).Round(time.Millisecond)), nil
		}
		select {
		case <-time.After(lookPause):
		case <-ctx.Done():
			return "", fmt.Errorf("the message for %s was taken, and is on no platform after %s: %w", t.Address, time.Since(began).Round(time.Second), context.Cause(ctx))
		}
	}
}

// login logs in by a protocol, and by IMAP looks for the message if there is one.
func (t *Trial) login(ctx context.Context, protocol, id string, w Ways) (string, Sight, error) {
	if protocol != IMAP {
		id = ""
	}
	v, err := w.Login(ctx, protocol, id)
	switch {
	case v.Platform == "" && err == nil:
		err = errors.New("it isn't known which platform let it in")
		fallthrough
	case v.Platform == "":
		return "", Sight{}, fmt.Errorf("login of %s by %s: %w", t.Login, protocol, err)
	case v.Platform != t.Platform:
		return "", Sight{}, fmt.Errorf("%s was logged in by %s at platform %s: want %s", t.Login, protocol, v.Platform, t.Platform)
	case err != nil:
		return "", v.Message, fmt.Errorf("%s was logged in by %s at %s, but %w", t.Login, protocol, v.Platform, err)
	}
	return fmt.Sprintf("%s was logged in by %s at %s", t.Login, protocol, v.Platform), v.Message, nil
}

// message is what is sent. It asks nobody to answer (RFC 3834 section 5).
func (t *Trial) message(id string, now time.Time) []byte {
	return fmt.Appendf(nil, "From: mailcutover <canary@%s>\r\nTo: <%s>\r\nSubject: canary of %s on %s\r\nDate: %s\r\nMessage-ID: %s\r\n"+
		"Auto-Submitted: auto-generated\r\nX-Auto-Response-Suppress: All\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"+
		"A message by which mailcutover tries whether mail of agency %[3]s arrives where it should.\r\nIt can be deleted.\r\n",
		t.Node, t.Address, t.Agency, t.Platform, now.Format(time.RFC1123Z), id)
}
