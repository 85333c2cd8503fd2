package canary

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"mailcutover/routing"
)

// Trial says what is tried.
type Trial struct {
	Agency   routing.AgencyID
	Platform routing.PlatformID // that has the agency now
	Node     string             // host name of this node, for the message

	Address string // of the canary's mailbox, as the table has it; empty: no message is sent
	Login   string // of it, as a client gives it; empty: nobody logs in
}

// Delivery is where a message went.
type Delivery struct {
	Platform routing.PlatformID
	Host     string
	Refused  string // what the platform said, if it took it for nobody
}

// Ways are how mail and logins come through this node. Each ends soon after its context.
type Ways struct {
	// Send hands a message of the null sender to one of this node's listeners. nil: it was
	// taken.
	Send func(ctx context.Context, to string, text []byte) error

	// Delivered looks once where a message went; ok is false while it went nowhere.
	Delivered func(ctx context.Context, messageID string) (d Delivery, ok bool, err error)

	// Login logs in through one of this node's listeners, and returns which platform let it
	// in. Then it looks into the INBOX until the message is there, or ctx ends; an empty
	// messageID is not looked for.
	Login func(ctx context.Context, messageID string) (routing.PlatformID, error)
}

// Result is what a trial came to.
type Result struct {
	Agency routing.AgencyID `json:"agency"`
	OK     bool             `json:"ok"`
	Mail   string           `json:"mail,omitempty"`  // what came of the message, for people; empty: none was sent
	Login  string           `json:"login,omitempty"` // what came of the login, for people; empty: none was tried
	Ended  time.Time        `json:"ended"`
}

// Text is what came of it, in one line.
func (r *Result) Text() string {
	if r.Mail == "" || r.Login == "" {
		return r.Mail + r.Login
	}
	return "mail: " + r.Mail + "; login: " + r.Login
}

// lookPause is the time between two looks at where the message went.
const lookPause = 100 * time.Millisecond

// Run tries the message, and then the login. It never lasts much longer than ctx. Half of the
// time is the login's, so that a message which doesn't arrive says nothing about logins.
func Run(ctx context.Context, t Trial, w Ways) Result {
	r := Result{Agency: t.Agency, OK: true}
	id := ""
	if t.Address != "" {
		id = fmt.Sprintf("<canary.%s@%s>", uuid.NewString(), t.Node)
		share, cancel := half(ctx)
		text, err := t.mail(share, id, w)
		cancel()
		if r.Mail = text; err != nil {
			r.OK, r.Mail, id = false, err.Error(), ""
		}
	}
	if t.Login != "" {
		text, err := t.login(ctx, id, w)
		if r.Login = text; err != nil {
			r.OK, r.Login = false, err.Error()
		}
	}
	r.Ended = time.Now()
	return r
}

// half returns ctx for half of the time that it leaves.
func half(ctx context.Context) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		return context.WithTimeout(ctx, time.Until(end)/2)
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

// login logs in, and looks for the message if there is one.
func (t *Trial) login(ctx context.Context, id string, w Ways) (string, error) {
	platform, err := w.Login(ctx, id)
	switch {
	case platform == "" && err == nil:
		err = errors.New("it isn't known which platform let it in")
		fallthrough
	case platform == "":
		return "", fmt.Errorf("login of %s: %w", t.Login, err)
	case platform != t.Platform:
		return "", fmt.Errorf("%s was logged in at platform %s: want %s", t.Login, platform, t.Platform)
	case err != nil:
		return "", fmt.Errorf("%s was logged in at %s, but %w", t.Login, platform, err)
	case id == "":
		return fmt.Sprintf("%s was logged in at %s", t.Login, platform), nil
	}
	return fmt.Sprintf("%s was logged in at %s, and found the message", t.Login, platform), nil
}

// message is what is sent. It asks nobody to answer (RFC 3834 section 5).
func (t *Trial) message(id string, now time.Time) []byte {
	return fmt.Appendf(nil, "From: mailcutover <canary@%s>\r\nTo: <%s>\r\nSubject: canary of %s on %s\r\nDate: %s\r\nMessage-ID: %s\r\n"+
		"Auto-Submitted: auto-generated\r\nX-Auto-Response-Suppress: All\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"+
		"A message by which mailcutover tries whether mail of agency %[3]s arrives where it should.\r\nIt can be deleted.\r\n",
		t.Node, t.Address, t.Agency, t.Platform, now.Format(time.RFC1123Z), id)
}
