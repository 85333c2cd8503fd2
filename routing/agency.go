package routing

import (
	"errors"
	"fmt"
)

// Errors of the functions that compute an agency's next record.
var (
	ErrNotArmed      = errors.New("agency is not armed")
	ErrOperationOpen = errors.New("another operation of the agency is open")
	ErrNotOwner      = errors.New("the operation doesn't own the agency")
	ErrFinalised     = errors.New("the way back is finalised")
	ErrPublished     = errors.New("already published")
	ErrNotPublished  = errors.New("not yet published")
	ErrLocked        = errors.New("agency is locked")
	ErrNotLocked     = errors.New("agency is not locked")
	ErrUnconfirmed   = errors.New("an emergency is not confirmed by a second person")
	ErrNotTarget     = errors.New("agency is not on its target platform")
	ErrNotSettling   = errors.New("agency is not about to be settled")
)

// Tightness says how an agency is leased (docs/architecture/switch.md): it is unrelated
// to whether the way back is still open.
type Tightness uint8

const (
	TightnessUnknown Tightness = iota // read as armed: the stricter one
	Settled                           // not about to move: long lease
	Armed                             // about to move, or just moved: short lease, and a check before each final dot and login
	Settling                          // on the way from armed to settled, treated as armed until that is durable
)

// String returns the word used in the table and in logs.
func (t Tightness) String() string {
	switch t {
	case Settled:
		return "settled"
	case Armed:
		return "armed"
	case Settling:
		return "settling"
	default:
		return "unknown"
	}
}

// MarshalText implements encoding.TextMarshaler.
func (t Tightness) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; an unknown word is read as unknown.
func (t *Tightness) UnmarshalText(b []byte) error {
	switch string(b) {
	case "settled":
		*t = Settled
	case "armed":
		*t = Armed
	case "settling":
		*t = Settling
	default:
		*t = TightnessUnknown
	}
	return nil
}

// Agency is one agency's record, as it stands in the table. Its methods return the next
// record and change nothing; the table stores it if the record it was computed from is
// still the current one.
type Agency struct {
	ID     AgencyID   `json:"id"`
	Source PlatformID `json:"source"`
	Target PlatformID `json:"target"`
	Parent AgencyID   `json:"parent,omitempty"` // set for a pilot group

	Phase     Phase       `json:"phase"`
	Published bool        `json:"published"` // false between commit and publish: closed
	Locked    bool        `json:"locked"`    // closed, whatever the phase
	Finalised bool        `json:"finalised"` // begin towards the source is refused
	Epoch     Epoch       `json:"epoch"`
	Nonce     Nonce       `json:"nonce"`
	Operation OperationID `json:"operation,omitempty"` // owns the phase from begin to publish or abort

	// Unconfirmed are the emergencies, operations or locks, that a second person has not
	// confirmed yet: while there is one, nothing else may begin, and nothing be finalised.
	Unconfirmed Emergencies `json:"unconfirmed,omitempty"`

	Tightness Tightness `json:"tightness"`
	ArmedAt   Epoch     `json:"armed_at"` // epoch at the last arming

	Mapping  Digest   `json:"mapping"`  // the mapping in force
	Revision Revision `json:"revision"` // of the table, at this record's last change; set by the table
}

// NewAgency returns the record of an agency that begins on its source platform, with
// the empty mapping.
func NewAgency(id AgencyID, source, target PlatformID) (Agency, error) {
	if source == "" || target == "" || source == target {
		return Agency{}, fmt.Errorf("agency %s: source platform %q and target platform %q: want two different platforms", id, source, target)
	}
	return Agency{
		ID: id, Source: source, Target: target, Phase: PhaseSource, Published: true,
		Epoch: Epoch{Term: 1, Number: 1}, Tightness: Settled,
	}, nil
}

// Open reports whether mail and logins may go to the agency's platform.
func (a *Agency) Open() bool { return a.Phase.Open() && a.Published && !a.Locked }

// Platform returns the platform that holds the mailboxes now, open or not; empty in an
// unknown phase.
func (a *Agency) Platform() PlatformID {
	switch {
	case a.Phase == PhaseUnknown || int(a.Phase) >= len(phaseNames):
		return ""
	case a.Phase.OnTarget():
		return a.Target
	default:
		return a.Source
	}
}

// InTerm returns the record as the next one is to be computed from in this term of the
// table; an older term than the record's changes nothing.
func (a Agency) InTerm(term uint32) Agency {
	a.Epoch.Term = max(a.Epoch.Term, term)
	return a
}

// Emergency marks that one person alone did what the record shows, under this id, and that
// a second one has to confirm it. Without that no answer changes, so the epoch stays.
func (a Agency) Emergency(id OperationID) Agency {
	a.Unconfirmed = a.Unconfirmed.With(id)
	return a
}

// Confirmed ends the mark of an emergency; those of others stay.
func (a Agency) Confirmed(id OperationID) (Agency, error) {
	if !a.Unconfirmed.Has(id) {
		return a, fmt.Errorf("confirm %s: emergency %s, the agency's are %q", a.ID, id, a.Unconfirmed)
	}
	a.Unconfirmed = a.Unconfirmed.Without(id)
	return a, nil
}

// BeginEmergency is Begin on one person's word: an emergency before it doesn't keep it
// back, and it has to be confirmed itself.
func (a Agency) BeginEmergency(op OperationID, nonce Nonce) (Agency, error) {
	free := a
	free.Unconfirmed = ""
	next, err := free.Begin(op, nonce, EventBegin)
	if err != nil {
		return a, err
	}
	next.Unconfirmed = a.Unconfirmed
	return next.Emergency(op), nil
}

// Begin closes the agency for op, to go to the other platform or, with remap, to
// another mapping.
func (a Agency) Begin(op OperationID, nonce Nonce, event Event) (Agency, error) {
	switch {
	case op == "" || nonce == 0:
		return a, fmt.Errorf("begin %s: %w: operation %q, nonce %s: want both", a.ID, ErrBadID, op, nonce)
	case a.Operation != "":
		return a, fmt.Errorf("begin %s: %w: %s", a.ID, ErrOperationOpen, a.Operation)
	case a.Tightness != Armed:
		return a, fmt.Errorf("begin %s: %w", a.ID, ErrNotArmed)
	case a.Unconfirmed != "":
		return a, fmt.Errorf("begin %s: %w: %s", a.ID, ErrUnconfirmed, a.Unconfirmed)
	case event == EventBegin && a.Phase == PhaseTarget && a.Finalised:
		return a, fmt.Errorf("begin %s: %w", a.ID, ErrFinalised)
	}
	if event != EventBegin && event != EventBeginRemap {
		return a, fmt.Errorf("begin %s: %w", a.ID, &TransitionError{From: a.Phase, On: event})
	}
	if err := a.follow(event); err != nil {
		return a, fmt.Errorf("begin %s: %w", a.ID, err)
	}
	a.Operation, a.Nonce = op, nonce
	return a, nil
}

// Commit sets the platform that the begin of op with this nonce was for. The agency
// stays closed until Publish.
func (a Agency) Commit(op OperationID, nonce Nonce) (Agency, error) {
	if err := a.ownedBy(op, nonce); err != nil {
		return a, fmt.Errorf("commit %s: %w", a.ID, err)
	}
	if err := a.follow(EventCommit); err != nil {
		return a, fmt.Errorf("commit %s: %w", a.ID, err)
	}
	a.Published = false
	return a, nil
}

// CommitRemap is Commit for a change of the mapping.
func (a Agency) CommitRemap(op OperationID, nonce Nonce, mapping Digest) (Agency, error) {
	if a.Phase != PhaseRemapSource && a.Phase != PhaseRemapTarget {
		return a, fmt.Errorf("commit %s: %w", a.ID, &TransitionError{From: a.Phase, On: EventCommit})
	}
	next, err := a.Commit(op, nonce)
	if err == nil {
		next.Mapping = mapping
	}
	return next, err
}

// Publish opens the agency after a commit, once that is known to be durable.
func (a Agency) Publish(op OperationID) (Agency, error) {
	if a.Operation != op || op == "" {
		return a, fmt.Errorf("publish %s: %w", a.ID, ErrNotOwner)
	}
	if a.Published {
		return a, fmt.Errorf("publish %s: %w", a.ID, ErrPublished)
	}
	if !a.Phase.Open() {
		return a, fmt.Errorf("publish %s: %w: phase %s", a.ID, ErrTransition, a.Phase)
	}
	a.Published = true
	a.Operation = ""
	a.Epoch = a.Epoch.Next()
	return a, nil
}

// Abort reopens the agency where it was before op began.
func (a Agency) Abort(op OperationID, nonce Nonce) (Agency, error) {
	if err := a.ownedBy(op, nonce); err != nil {
		return a, fmt.Errorf("abort %s: %w", a.ID, err)
	}
	if !a.Published {
		return a, fmt.Errorf("abort %s: %w: publish it, or begin the way back", a.ID, ErrNotPublished)
	}
	if err := a.follow(EventAbort); err != nil {
		return a, fmt.Errorf("abort %s: %w", a.ID, err)
	}
	a.Operation = ""
	return a, nil
}

// Arm makes the agency ready to begin: no record's answer changes, so the epoch stays.
func (a Agency) Arm() Agency {
	a.Tightness, a.ArmedAt = Armed, a.Epoch
	return a
}

// Settle begins to end the arming: the agency is treated as armed until EndSettle, which
// comes when this record is durable. As one change, a failover could lose it while nodes
// already rely on their long leases. It is refused while an operation is open.
func (a Agency) Settle() (Agency, error) {
	switch {
	case a.Operation != "":
		return a, fmt.Errorf("settle %s: %w: %s", a.ID, ErrOperationOpen, a.Operation)
	case a.Tightness != Armed:
		return a, fmt.Errorf("settle %s: %w", a.ID, ErrNotArmed)
	}
	a.Tightness = Settling
	return a, nil
}

// EndSettle makes the agency settled after Settle is known to be durable.
func (a Agency) EndSettle() (Agency, error) {
	if a.Tightness != Settling {
		return a, fmt.Errorf("settle %s: %w: it is %s", a.ID, ErrNotSettling, a.Tightness)
	}
	a.Tightness = Settled
	return a, nil
}

// Finalise ends the way back: begin towards the source is refused from then on.
func (a Agency) Finalise() (Agency, error) {
	switch {
	case a.Operation != "":
		return a, fmt.Errorf("finalise %s: %w: %s", a.ID, ErrOperationOpen, a.Operation)
	case a.Unconfirmed != "":
		return a, fmt.Errorf("finalise %s: %w: %s", a.ID, ErrUnconfirmed, a.Unconfirmed)
	case a.Finalised:
		return a, fmt.Errorf("finalise %s: %w", a.ID, ErrFinalised)
	case a.Phase != PhaseTarget:
		return a, fmt.Errorf("finalise %s: %w: phase %s", a.ID, ErrNotTarget, a.Phase)
	}
	a.Finalised = true
	a.Epoch = a.Epoch.Next()
	return a, nil
}

// Lock closes the agency whatever its phase.
func (a Agency) Lock() (Agency, error) {
	if a.Locked {
		return a, fmt.Errorf("lock %s: %w", a.ID, ErrLocked)
	}
	a.Locked = true
	a.Epoch = a.Epoch.Next()
	return a, nil
}

// Unlock ends a lock.
func (a Agency) Unlock() (Agency, error) {
	if !a.Locked {
		return a, fmt.Errorf("unlock %s: %w", a.ID, ErrNotLocked)
	}
	a.Locked = false
	a.Epoch = a.Epoch.Next()
	return a, nil
}

func (a *Agency) ownedBy(op OperationID, nonce Nonce) error {
	if op == "" || a.Operation != op || a.Nonce != nonce {
		return fmt.Errorf("%w: operation %s, the agency's is %q", ErrNotOwner, op, a.Operation)
	}
	return nil
}

// follow takes the arrow of the state machine; every change of phase is a new epoch.
func (a *Agency) follow(e Event) error {
	to, err := Next(a.Phase, e)
	if err != nil {
		return err
	}
	a.Phase = to
	a.Epoch = a.Epoch.Next()
	return nil
}
