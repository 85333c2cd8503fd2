package plan

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/routing"
)

// Name names a wave, in the form of an agency's id.
type Name string

// ParseName returns s as a wave's name.
func ParseName(s string) (Name, error) {
	if _, err := routing.ParseAgencyID(s); err != nil {
		return "", fmt.Errorf("wave %q: %w: want 1 to 63 characters of a-z, 0-9 and hyphen, not beginning with a hyphen", s, routing.ErrBadID)
	}
	return Name(s), nil
}

// Bounds of a wave.
const (
	MaxAgencies = 60 // of one wave: its record is one document of the table
	MaxAtOnce   = 20
	MaxRetries  = 5 // of one agency, after operations that were aborted
	maxItems    = 20
	maxText     = 300 // characters of a text that people give

	// MaxLife is for how long after its start a wave starts agencies. The proposal with its
	// approvals is not kept in the table for longer.
	MaxLife = 28 * 24 * time.Hour
)

// Item is a question of the checklist that a person answers.
type Item struct {
	ID    string `json:"id"`
	Text  string `json:"text"`
	Valid Span   `json:"valid"` // for how long an answer counts; 0: until the wave ends
}

// Backup is the item that every wave has: the platforms' backup is confirmed by a person.
// How long an answer counts is a setting.
const Backup = "backup"

// Definition is what is approved of a wave.
type Definition struct {
	Agencies []routing.AgencyID `json:"agencies"` // in the order in which they are cut over
	Owner    string             `json:"owner"`    // who is asked about it: a person or a team

	// Pilot makes every wave that is none wait until this one is done and has rested. After
	// are further waves that have to be done, and to have rested, before this one begins.
	Pilot bool   `json:"pilot,omitempty"`
	After []Name `json:"after,omitempty"`

	Calendar
	NotBefore Day `json:"not_before,omitzero"` // the first and the last date on which agencies start
	NotAfter  Day `json:"not_after,omitzero"`  // zero: MaxLife after the start

	AtOnce  int  `json:"at_once,omitempty"` // agencies that are under way or bake at one time; 0: 1
	Retries int  `json:"retries,omitempty"` // how often an agency whose operation was aborted may be tried again, when a person names it; 0: never
	Bake    Span `json:"bake,omitempty"`    // after each agency, before another one takes its place
	Rest    Span `json:"rest,omitempty"`    // after the last one, before waves that come after this one

	Checks []Item `json:"checks,omitempty"` // asked besides Backup
}

// Check reports all that is wrong with a definition, whatever the table holds.
func (d *Definition) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if n := len(d.Agencies); n < 1 || n > MaxAgencies {
		bad("%d agencies: want 1 to %d", n, MaxAgencies)
	}
	for i, id := range d.Agencies {
		if _, err := routing.ParseAgencyID(string(id)); err != nil {
			errs = append(errs, err)
		}
		if slices.Contains(d.Agencies[:i], id) {
			bad("agency %s is named twice", id)
		}
	}
	if strings.TrimSpace(d.Owner) == "" || len(d.Owner) > maxText {
		bad("owner %q: want a person or a team, at most %d characters", d.Owner, maxText)
	}
	for _, n := range d.After {
		if _, err := ParseName(string(n)); err != nil {
			errs = append(errs, fmt.Errorf("after: %w", err))
		}
	}
	if len(d.After) > MaxAgencies {
		bad("after: %d waves: want at most %d", len(d.After), MaxAgencies)
	}
	if _, err := d.Schedule(); err != nil {
		errs = append(errs, err)
	}
	if !d.NotBefore.IsZero() && !d.NotAfter.IsZero() && d.NotAfter.Compare(d.NotBefore) < 0 {
		bad("not_after %s is before not_before %s", d.NotAfter, d.NotBefore)
	}
	if d.AtOnce < 0 || d.AtOnce > MaxAtOnce {
		bad("at_once %d: want 1 to %d", d.AtOnce, MaxAtOnce)
	}
	if d.Retries < 0 || d.Retries > MaxRetries {
		bad("retries %d: want 0 to %d", d.Retries, MaxRetries)
	}
	for name, s := range map[string]Span{"bake": d.Bake, "rest": d.Rest} {
		if s < 0 || time.Duration(s) > MaxLife {
			bad("%s %s: want 0s to %s", name, s, Span(MaxLife))
		}
	}
	if len(d.Checks) > maxItems {
		bad("%d checks: want at most %d", len(d.Checks), maxItems)
	}
	for i, it := range d.Checks {
		if _, err := ParseName(it.ID); err != nil || slices.Contains(machines, it.ID) || it.ID == Backup {
			bad("check %q: want an id of a-z, 0-9 and hyphen that is none of %s, %s", it.ID, Backup, strings.Join(machines, ", "))
		}
		if slices.ContainsFunc(d.Checks[:i], func(o Item) bool { return o.ID == it.ID }) {
			bad("check %s is there twice", it.ID)
		}
		if strings.TrimSpace(it.Text) == "" || len(it.Text) > maxText || it.Valid < 0 {
			bad("check %s: want a text of at most %d characters, and a validity of 0s or more", it.ID, maxText)
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// Seats is how many agencies may be under way or bake at one time.
func (d *Definition) Seats() int { return max(1, d.AtOnce) }

// Item returns an item of the checklist that people answer.
func (d *Definition) Item(id string) (Item, bool) {
	if id == Backup {
		return Item{ID: Backup, Text: "the platforms' backup of this wave's mailboxes is confirmed"}, true
	}
	i := slices.IndexFunc(d.Checks, func(it Item) bool { return it.ID == id })
	if i < 0 {
		return Item{}, false
	}
	return d.Checks[i], true
}

// Covered is an agency as a wave's approval covers it.
type Covered struct {
	Agency routing.AgencyID   `json:"agency"`
	Epoch  routing.Epoch      `json:"epoch"`
	Source routing.PlatformID `json:"source"`
	Target routing.PlatformID `json:"target"`
}

// Bound is all that an approval of a wave is bound to.
type Bound struct {
	Wave       Name       `json:"wave"`
	Definition Definition `json:"definition"`
	Covers     []Covered  `json:"covers"` // in the order of the definition
}

// Digest names what an approval is bound to.
func (b *Bound) Digest() routing.Digest {
	text, err := json.Marshal(b)
	if err != nil {
		panic("digest of wave " + string(b.Wave) + ": " + err.Error()) // its types have no value that JSON lacks
	}
	h := sha256.New()
	h.Write([]byte("mailcutover wave 1\n"))
	h.Write(text)
	return routing.Digest(h.Sum(nil))
}

// Bind returns what an approval of a wave is bound to as things are. It refuses an agency that isn't
// there or isn't on its source platform.
func Bind(s *routing.State, name Name, d Definition) (Bound, error) {
	b := Bound{Wave: name, Definition: d}
	var errs []error
	for _, id := range d.Agencies {
		a, ok := s.Agency(id)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("no agency %q in the table", id))
		case a.Phase != routing.PhaseSource:
			errs = append(errs, fmt.Errorf("agency %s is in phase %s, want %s", id, a.Phase, routing.PhaseSource))
		}
		b.Covers = append(b.Covers, Covered{id, a.Epoch, a.Source, a.Target})
	}
	if err := errors.Join(errs...); err != nil {
		return b, fmt.Errorf("wave %s: %w", name, err)
	}
	return b, nil
}

// strict decodes JSON and refuses what a newer version of the program has added: this one
// can't say what it would mean.
func strict(text string, into any) error {
	in := json.NewDecoder(bytes.NewReader([]byte(text)))
	in.DisallowUnknownFields()
	return in.Decode(into)
}
