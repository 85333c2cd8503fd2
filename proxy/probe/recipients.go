package probe

import (
	"context"
	"errors"
	"fmt"

	"mailcutover/mail"
	"mailcutover/proxy/relay"
)

// ErrRefused is wrapped if the platform took the sender and refused a recipient, for now or
// for good.
var ErrRefused = errors.New("it refuses a recipient")

// Recipients asks a platform whether it would take mail of the null sender for some
// mailboxes, by their addresses there, and takes that back. It returns which host was asked.
// Hosts that are left alone since they failed are tried all the same.
//
// Errors are those of [relay.Pool.Open], or wrap the first recipient's; ErrRefused is among
// them where the platform answered.
func Recipients(ctx context.Context, pool *relay.Pool, addresses []mail.Path) (host string, err error) {
	if len(addresses) == 0 {
		return "", errors.New("no recipient is given")
	}
	if err := pool.Probe(ctx); err != nil { // Open leaves hosts alone that failed
		return "", err
	}
	t, err := pool.Open(ctx, mail.Client{}, mail.Path{}, nil) // of the null sender
	if err != nil {
		return "", err
	}
	defer t.Abort()
	rcpts := make([]relay.Recipient, len(addresses))
	for i := range addresses {
		rcpts[i].To = addresses[i]
	}
	refused, first := 0, error(nil)
	for i, err := range t.Rcpts(ctx, rcpts) {
		if err == nil {
			continue
		}
		if refused++; first == nil {
			first = fmt.Errorf("%s: %w", addresses[i], err)
		}
	}
	var answered *relay.PlatformReply
	switch {
	case refused == 0:
		return t.Host(), nil
	case errors.As(first, &answered) && answered.Verb == "RCPT":
		return t.Host(), fmt.Errorf("%w: %d of %d: %w", ErrRefused, refused, len(addresses), first)
	default:
		return t.Host(), first
	}
}
