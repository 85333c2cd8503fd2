package redistable

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

// answer reads what a script for changes answered.
func answer(cmd *redis.Cmd) (routing.Position, error) {
	words, err := cmd.StringSlice()
	if err != nil {
		return routing.Position{}, err
	}
	return answered(words)
}

// answered is answer for words that were read.
func answered(words []string) (pos routing.Position, err error) {
	words = append(words, "", "", "", "", "") // so that a short answer can be indexed
	switch words[0] {
	case "OK":
		return decodePosition([]any{words[1], format, words[2], words[3], words[4]})
	case "EMPTY":
		err = table.ErrEmpty
	case "FOUNDED":
		err = fmt.Errorf("%w: %s", table.ErrFounded, words[1])
	case "INCARNATION":
		err = fmt.Errorf("%w: %s", table.ErrIncarnation, words[1])
	case "STALE":
		err = fmt.Errorf("%w: %s", table.ErrStale, words[1])
	case "REUSED":
		err = fmt.Errorf("%w, revision %s", table.ErrReused, words[1])
	case "NOMAPPING":
		err = fmt.Errorf("%w: %s", table.ErrNoMapping, words[1])
	case "UNCHECKED":
		err = fmt.Errorf("%w: it changes a mapping, but Mapped is not set", table.ErrBadChange)
	case "REJOINING":
		err = table.ErrRejoining
		if words[1] != "" {
			err = fmt.Errorf("%w: %s", table.ErrRejoining, words[1])
		}
	case "TERM":
		err = fmt.Errorf("%w: %s", table.ErrTerm, words[1])
	case "GUARD":
		err = fmt.Errorf("%w: %s", table.ErrGuard, words[1])
	case "EVICTED":
		err = fmt.Errorf("%w: %s", table.ErrEvicted, words[1])
	case "INSTANCE":
		err = fmt.Errorf("%w: %s", table.ErrInstance, words[1])
		if until, terr := parseTime(words[2]); terr == nil {
			err = fmt.Errorf("%w %s", err, until.Format(time.RFC3339))
		}
	case "NOTMEMBER":
		err = fmt.Errorf("%w: %s", table.ErrNotMember, words[1])
	case "FORMAT":
		err = wrongFormat(words[1])
	default:
		err = fmt.Errorf("damaged: %s %s", words[0], words[1])
	}
	return routing.Position{}, err
}

// prefixes of Redis' errors, and what they mean to an operator.
var hints = []struct{ prefix, hint string }{
	{"READONLY", "the server is a replica"},
	{"NOREPLICAS", "the server has too few replicas"},
	{"LOADING", "the server is still loading its data"},
	{"MASTERDOWN", "the server is a replica without its primary"},
	{"OOM", "the server's memory is full"},
	{"MISCONF", "the server can't write to its disk"},
	{"WRONGTYPE", "a key is of another type: foreign data under this prefix?"},
	{"NOAUTH", "the server wants a password"},
	{"Protocol error: unauthenticated", "the server wants a password"}, // large requests get no better answer
	{"WRONGPASS", "wrong user or password"},
	{"NOPERM", "the user lacks a right"},
	{"BUSY", "the server is busy with a script"},
}

// errReplica is a server that must not be asked.
var errReplica = errors.New("the server is a replica")

// unavailable makes every error that isn't one of the contract's into
// table.ErrUnavailable with a hint. ctx is the caller's: only its error is wrapped.
func (t *Table) unavailable(ctx context.Context, err error) error {
	if table.Known(err) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", table.ErrUnavailable, ctx.Err())
	}
	for _, h := range hints {
		if redis.HasErrorPrefix(err, h.prefix) {
			return fmt.Errorf("%w: %s: %v", table.ErrUnavailable, h.hint, err)
		}
	}
	var netErr net.Error
	switch {
	case errors.Is(err, redis.ErrClosed):
		return fmt.Errorf("%w: it is closed", table.ErrUnavailable)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Errorf("%w: no answer from %s in time: %v", table.ErrUnavailable, t.shared.Addr, err)
	}
	return fmt.Errorf("%w: %v", table.ErrUnavailable, err)
}

// checkRole refuses the answer of a server that isn't a primary: what it says may be old.
func checkRole(cmd *redis.Cmd) error {
	v, err := cmd.Slice()
	if err != nil {
		return err
	}
	if role, _ := first(v).(string); role != "master" {
		return fmt.Errorf("%w: its role is %q", errReplica, role)
	}
	return nil
}

func first(v []any) any {
	if len(v) == 0 {
		return nil
	}
	return v[0]
}

// unknownCommand reports whether the server is too old for a command.
func unknownCommand(err error) bool {
	return err != nil && strings.Contains(strings.ToLower(err.Error()), "unknown command")
}
