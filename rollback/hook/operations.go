package hook

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// Mover is the name of the external step.
const Mover = "mover"

// Operations gives operations their hooks; it implements operation.Hooks. Its functions
// are required and must be safe for concurrent use.
type Operations struct {
	// Find returns the platform's hook of a kind; nil: it has none.
	Find func(routing.PlatformID, Kind) *Hook

	// State returns this node's copy of the table, for the mailboxes.
	State func() *routing.State

	// Mover reports whether an operation waits for somebody's word that the content of the
	// mailboxes is where it belongs, and after which time people are alarmed.
	Mover func(operation.Kind) (expected time.Duration, wanted bool)

	// Forwards reads back what forward-on and forward-off did; nil: nobody does.
	Forwards Forwards
}

// Forwards looks at what a platform's directory says of forwards. Its methods are safe for
// concurrent use.
type Forwards interface {
	// Goals returns where the mail of an agency's mailboxes has to be forwarded to; those of which
	// it isn't known are missing.
	Goals(agency routing.AgencyID) map[routing.MailboxID]routing.Address

	// By says what reads the forwards of an agency on a platform back, in words; the error is why
	// nothing does. It goes by the settings alone, since an approval is bound to it.
	By(agency routing.AgencyID, platform routing.PlatformID) (what string, err error)

	// Await returns, in words, what the directory said when all forwards were on, or off. An error
	// says which were not in the end, by directory ids. Where By has an error, so has Await.
	Await(ctx context.Context, agency routing.AgencyID, platform routing.PlatformID, on bool) (receipt string, err error)
}

// Of implements operation.Hooks. A remap changes no platform, so nothing is called for it.
func (o *Operations) Of(kind operation.Kind, a routing.Agency) []operation.Hook {
	losing, winning := a.Source, a.Target
	switch kind {
	case operation.Cutover:
	case operation.Rollback:
		losing, winning = winning, losing
	default:
		return nil
	}
	var all []operation.Hook
	add := func(point operation.Point, platform, other routing.PlatformID, kind Kind) {
		do := o.Find(platform, kind)
		if do == nil {
			return
		}
		all = append(all, &step{point: point, do: do, undo: o.Find(platform, kind.Undo()), other: other, agency: a.ID, state: o.State, forwards: o.Forwards})
	}
	add(operation.PointClose, losing, winning, Close)
	// Whatever was forwarded here ends first: never do both sides forward to each other.
	add(operation.PointForward, winning, losing, ForwardOff)
	add(operation.PointForward, losing, winning, ForwardOn)
	add(operation.PointOpen, winning, losing, Open)
	if expected, wanted := o.Mover(kind); wanted {
		all = append(all, mover{expected})
	}
	return all
}

// step is a hook at its place in an operation.
type step struct {
	point  operation.Point
	do     *Hook
	undo   *Hook              // nil: there is none
	other  routing.PlatformID // than the hook's
	agency routing.AgencyID   // that the operation was asked for
	state  func() *routing.State

	forwards Forwards // nil: nothing is read back
}

// Name implements operation.Hook. By it forward-off comes before forward-on.
func (s *step) Name() string { return string(s.do.Kind) + "-" + string(s.do.Platform) }

func (s *step) Point() operation.Point       { return s.point }
func (s *step) Platform() routing.PlatformID { return s.do.Platform }
func (s *step) External() bool               { return false }
func (s *step) Undoes() bool                 { return s.undo != nil }

// Digest covers what is called and how, and a program's content, but no token.
func (s *step) Digest() routing.Digest {
	type called struct {
		Kind     Kind
		Platform routing.PlatformID
		Command  []string
		Program  string // digest of its content, or why there is none
		URL      string
		Timeout  time.Duration
		Attempts int
		Pause    time.Duration
		ReadBack string `json:",omitempty"` // by what
	}
	by, _ := s.readBack()
	var parts []called
	for _, h := range []*Hook{s.do, s.undo} {
		if h != nil {
			parts = append(parts, called{h.Kind, h.Platform, h.Command, program(h), h.URL, h.Timeout, h.Attempts, h.Pause, by})
		}
	}
	text, err := json.Marshal(parts)
	if err != nil {
		panic("digest of a hook: " + err.Error()) // strings and numbers, all of which JSON has
	}
	return sha256.Sum256(text)
}

func program(h *Hook) string {
	if len(h.Command) == 0 {
		return ""
	}
	text, err := os.ReadFile(h.Command[0])
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

// Describe implements operation.Hook. Of a URL it tells host and path alone: a name and password
// in it, or its query, may be a secret.
func (s *step) Describe() string {
	what := strings.Join(s.do.Command, " ")
	if u, err := url.Parse(s.do.URL); len(s.do.Command) == 0 && err == nil {
		what = (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	}
	text := fmt.Sprintf("%s: %s; at most %d attempts of %s", s.do, what, s.do.Attempts, s.do.Timeout)
	if by, why := s.readBack(); why != nil {
		text += "; not read back: " + why.Error()
	} else if by != "" {
		text += "; read back " + by
	}
	if s.undo == nil {
		return text + "; nothing takes it back"
	}
	return text + fmt.Sprintf("; an abort calls %s", s.undo)
}

// readBack says what reads back what the hook did; empty: nothing does, and if the hook is about
// forwards, the error is why.
func (s *step) readBack() (by string, err error) {
	if s.forwards == nil || s.do.Kind != ForwardOn && s.do.Kind != ForwardOff {
		return "", nil
	}
	return s.forwards.By(s.agency, s.do.Platform)
}

// usual is how long a hook is expected to take, until more is known of it.
const usual = 10 * time.Second

// Callable implements operation.Callable, also for what would undo it.
func (s *step) Callable(ctx context.Context) error {
	err := s.do.Answers(ctx)
	if err == nil && s.undo != nil {
		err = s.undo.Answers(ctx)
	}
	if err != nil {
		return fmt.Errorf("platform %s: %w", s.do.Platform, err)
	}
	return nil
}

// Expected implements operation.Hook.
func (s *step) Expected() time.Duration { return usual }

// Patience implements operation.Hook: none, since Run has made all its attempts.
func (s *step) Patience() time.Duration { return 0 }

// Do implements operation.Hook.
func (s *step) Do(ctx context.Context, c operation.Call) (string, error) { return s.run(ctx, s.do, c) }

// Undo implements operation.Hook.
func (s *step) Undo(ctx context.Context, c operation.Call) (string, error) {
	if s.undo == nil {
		return "", nil
	}
	return s.run(ctx, s.undo, c)
}

// run calls a hook for each agency of the operation. The first that fails ends it.
func (s *step) run(ctx context.Context, h *Hook, c operation.Call) (string, error) {
	began := time.Now()
	done, attempts, output := 0, 0, ""
	for _, id := range c.Agencies {
		boxes, err := s.mailboxes(id, h.Platform, h.Kind)
		if err != nil {
			return "", err
		}
		if len(boxes) == 0 {
			continue
		}
		r, err := h.Run(ctx, Call{Operation: c.Operation, Agency: id, Mailboxes: boxes})
		if err != nil {
			if r.Output != "" {
				err = fmt.Errorf("%w; it said: %s", err, r.Output)
			}
			return "", err
		}
		done, attempts = done+r.Done, max(attempts, r.Attempts)
		if r.Output != "" {
			output = "; it said: " + r.Output
		}
	}
	read, err := s.await(ctx, h, c.Agencies)
	if err != nil {
		return "", fmt.Errorf("%s said that %d mailboxes are done, but: %w", h, done, err)
	}
	output = read + output
	return fmt.Sprintf("%s: %d mailboxes in %s, attempts %d%s", h, done, time.Since(began).Round(time.Millisecond), attempts, output), nil
}

// await reads back what a hook did, for all agencies; the text begins with a separator.
func (s *step) await(ctx context.Context, h *Hook, agencies []routing.AgencyID) (text string, err error) {
	if s.forwards == nil || h.Kind != ForwardOn && h.Kind != ForwardOff {
		return "", nil
	}
	for _, id := range agencies {
		if a, ok := s.state().Agency(id); !ok || a.Mapping.IsZero() {
			continue // it has no mailboxes
		}
		if _, why := s.forwards.By(id, h.Platform); why != nil {
			text += "; not read back: " + why.Error()
			continue
		}
		read, err := s.forwards.Await(ctx, id, h.Platform, h.Kind == ForwardOn)
		if err != nil {
			return "", err
		}
		text += "; " + read
	}
	return text, nil
}

// errNoMapping is about an agency whose mailboxes this node doesn't know.
var errNoMapping = errors.New("its mapping is not on this node")

// mailboxes are those of an agency as a platform knows them.
func (s *step) mailboxes(id routing.AgencyID, platform routing.PlatformID, kind Kind) ([]Mailbox, error) {
	state := s.state()
	a, known := state.Agency(id)
	m := state.Mapping(id)
	if known && a.Mapping.IsZero() {
		return nil, nil
	}
	if !known || m == nil {
		return nil, fmt.Errorf("mailboxes of agency %s: %w", id, errNoMapping)
	}
	var goals map[routing.MailboxID]routing.Address
	if s.forwards != nil && kind == ForwardOn {
		goals = s.forwards.Goals(id)
	}
	boxes := make([]Mailbox, 0, m.Len())
	for row := range m.Rows() {
		here, there := row.At(platform == a.Target), row.At(platform != a.Target)
		boxes = append(boxes, Mailbox{ID: row.Mailbox, Address: here.Address, Login: here.Login, OtherAddress: there.Address, ForwardTo: goals[row.Mailbox]})
	}
	return boxes, nil
}

// mover is the external step: nothing is called, people say when it is done.
type mover struct{ expected time.Duration }

func (mover) Name() string                 { return Mover }
func (mover) Point() operation.Point       { return operation.PointMover }
func (mover) Platform() routing.PlatformID { return "" }
func (mover) External() bool               { return true }
func (mover) Undoes() bool                 { return false }
func (m mover) Expected() time.Duration    { return m.expected }
func (mover) Patience() time.Duration      { return 0 }

// Digest implements operation.Hook.
func (mover) Digest() routing.Digest { return sha256.Sum256([]byte("external step " + Mover)) }

// Describe implements operation.Hook.
func (mover) Describe() string {
	return "what moves the mailboxes' content is done: somebody says so"
}

// Do and Undo implement operation.Hook; they are not called.
func (mover) Do(context.Context, operation.Call) (string, error)   { return "", nil }
func (mover) Undo(context.Context, operation.Call) (string, error) { return "", nil }
