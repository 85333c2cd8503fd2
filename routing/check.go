package routing

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// ErrConflict is what every error about keys that two agencies claim wraps.
var ErrConflict = errors.New("belongs to another")

// ErrNotAddition is wrapped by the errors of [State.CheckAddition].
var ErrNotAddition = errors.New("not a pure addition")

// CheckMapping reports everything that keeps m from being the mapping of its agency in
// this State: a key that another agency or a fixed address has, or that folds together
// with one of another agency's (docs/architecture/promises.md, P3), and an address
// outside the served domains. Each error names the key and the other.
//
// If several agencies change at once, as when a mailbox moves from one to another, ask
// the State that [State.Apply] makes of all of them, for each mapping.
func (s *State) CheckMapping(m *Mapping) []error {
	errs := s.unknown(m.agency)
	fixed := map[string]Fixed{}
	for _, f := range s.fixed {
		if k := f.Address.Skeleton(); k != string(f.Address) {
			fixed[k] = f
		}
	}
	check := func(id MailboxID, key string) {
		errs = s.checkKey(errs, m.agency, id, key)
		if f, ok := fixed[Address(key).Skeleton()]; ok && key != string(f.Address) {
			errs = append(errs, fmt.Errorf("%s of mailbox %s: %w: it folds together with the fixed address %s", key, id, ErrConflict, f.Address))
		}
	}
	for r := range m.Rows() {
		for _, a := range r.Addresses {
			if _, ok := s.domains[a.Domain()]; !ok {
				errs = append(errs, fmt.Errorf("%w: mailbox %s: address %s: %s is no served domain", ErrBadMapping, r.Mailbox, a, a.Domain()))
			}
			check(r.Mailbox, string(a))
		}
		for _, l := range r.Logins {
			check(r.Mailbox, string(l))
		}
		for _, p := range []Place{r.Source, r.Target} {
			if p.Address != "" && !slices.Contains(r.Addresses, p.Address) {
				check(r.Mailbox, string(p.Address))
			}
			if l, err := ParseLogin(p.Login); err == nil && !slices.Contains(r.Logins, l) {
				check(r.Mailbox, string(l))
			}
		}
	}
	for _, a := range s.agencies {
		if a.ID == m.agency || a.mapping == nil {
			continue
		}
		for id := range common(m, a.mapping) {
			errs = append(errs, fmt.Errorf("mailbox %s: %w agency, %s", id, ErrConflict, a.ID))
		}
	}
	return errs
}

// unknown returns an error for each agency but this one whose mapping isn't there: what it
// has nobody can tell.
func (s *State) unknown(agency AgencyID) (errs []error) {
	for _, id := range s.Missing() {
		if id != agency {
			errs = append(errs, fmt.Errorf("%w: the mapping of agency %s is not there, so that its names can't be compared", ErrBadMapping, id))
		}
	}
	return errs
}

// common returns the directory ids that stand in both mappings.
func common(m, o *Mapping) iter.Seq[string] {
	return func(yield func(string) bool) {
		next, stop := iter.Pull(o.ids())
		defer stop()
		other, ok := next()
		for id := range m.ids() {
			for ok && other < id {
				other, ok = next()
			}
			if ok && other == id && !yield(id) {
				return
			}
		}
	}
}

func (s *State) checkKey(errs []error, agency AgencyID, id MailboxID, key string) []error {
	if f, ok := s.fixed[Address(key)]; ok {
		return append(errs, fmt.Errorf("%s of mailbox %s: %w: the fixed address of a %s on %s", key, id, ErrConflict, f.Kind, f.Platform))
	}
	if other, a := s.holder(key, agency); a != "" {
		return append(errs, fmt.Errorf("%s of mailbox %s: %w: mailbox %s of agency %s", key, id, ErrConflict, other, a))
	}
	skeleton := Address(key).Skeleton()
	if f, ok := s.fixed[Address(skeleton)]; ok {
		return append(errs, fmt.Errorf("%s of mailbox %s: %w: it folds together with the fixed address %s", key, id, ErrConflict, f.Address))
	}
	for _, a := range s.agencies {
		if a.ID == agency || a.mapping == nil {
			continue
		}
		if other, ok := a.mapping.odd[skeleton]; ok {
			return append(errs, fmt.Errorf("%s of mailbox %s: %w: it folds together with a name of mailbox %s of agency %s", key, id, ErrConflict, other, a.ID))
		}
	}
	if skeleton != key {
		if other, a := s.holder(skeleton, agency); a != "" {
			return append(errs, fmt.Errorf("%s of mailbox %s: %w: it folds together with %s of mailbox %s of agency %s", key, id, ErrConflict, skeleton, other, a))
		}
	}
	return errs
}

// holder returns a mailbox outside the agency except that has key in any role.
func (s *State) holder(key string, except AgencyID) (id string, agency AgencyID) {
	h := hashKey(key)
	for w, pos := s.index.next(h, h); w.agency >= 0; w, pos = s.index.next(h, pos) {
		if line, ok := s.line(w); ok && s.agencies[w.agency].ID != except && lineHas(line, key) {
			return line[:36], s.agencies[w.agency].ID
		}
	}
	return "", ""
}

// CheckFixed reports what keeps f from being a fixed address in this State.
func (s *State) CheckFixed(f Fixed) error {
	if !slices.Contains(FixedKinds(), f.Kind) {
		return fmt.Errorf("%w: fixed address %s: kind %q: want one of %v", ErrBadMapping, f.Address, f.Kind, FixedKinds())
	}
	if _, ok := s.domains[f.Address.Domain()]; !ok {
		return fmt.Errorf("%w: fixed address %s: %s is no served domain", ErrBadMapping, f.Address, f.Address.Domain())
	}
	for _, a := range []Address{f.Address, f.At} {
		if c, err := ParseAddressKey(string(a)); a != "" && (err != nil || c != a) {
			return fmt.Errorf("%w: fixed address %s: %q is not in canonical form", ErrBadMapping, f.Address, a)
		}
	}
	if _, err := ParsePlatformID(string(f.Platform)); err != nil {
		return fmt.Errorf("%w: fixed address %s: %w", ErrBadMapping, f.Address, err)
	}
	if errs := s.unknown(""); len(errs) > 0 {
		return fmt.Errorf("fixed address %s: %w", f.Address, errs[0])
	}
	rest := *s
	rest.fixed = nil // a fixed address may replace itself, and fold together with others: no switch moves them
	if errs := rest.checkKey(nil, "", MailboxID{}, string(f.Address)); len(errs) > 0 {
		return fmt.Errorf("fixed address: %w", errs[0])
	}
	return nil
}

// CheckDetail reports why giving key to a mailbox, or to a fixed address if mailbox is
// zero, would change an answer that is given now: key has a detail (RFC 5233), nobody has
// the whole of it, and mail for it goes to whoever has it without the detail. mail says
// that key becomes an address; as a login or a place alone it would get no mail any more,
// also where it is the mailbox's own. separator is that of sub-addressing, or empty. It
// returns nil or an error that wraps [ErrNotAddition] and names the holder.
func (s *State) CheckDetail(key Address, mailbox MailboxID, mail bool, separator string) error {
	base, ok := key.WithoutDetail(separator)
	var whole, d Decision
	if !ok || s.decide(&whole, string(key), true) {
		return nil
	}
	switch s.decide(&d, string(base), true); {
	case d.Reason == ReasonFixed:
		return fmt.Errorf("%s: %w: mail for it goes to the fixed address %s now, which has it without the part behind %q", key, ErrNotAddition, base, separator)
	case d.Reason == ReasonConflict:
		return fmt.Errorf("%s: %w: two claim %s, which has it without the part behind %q", key, ErrNotAddition, base, separator)
	case d.Agency != "" && d.Mailbox == mailbox && !mail:
		return fmt.Errorf("%s: %w: mail for it goes to mailbox %s now, which has %s; make it an alias too", key, ErrNotAddition, d.Mailbox, base)
	case d.Agency != "" && d.Mailbox != mailbox:
		return fmt.Errorf("%s: %w: mail for it goes to mailbox %s of agency %s now, which has %s", key, ErrNotAddition, d.Mailbox, d.Agency, base)
	}
	return nil
}

// CheckAddition reports why putting m in the place of its agency's mapping would change
// an answer that is given now. Only new mailboxes, and new names of known ones, leave
// every answer as it is, unless a name had been somebody's with a detail: see
// [State.CheckDetail]. All else is a switch. It returns nil or an error that wraps
// [ErrNotAddition] and names the first mailbox concerned.
func (s *State) CheckAddition(m *Mapping, separator string) error {
	old := s.Mapping(m.agency)
	if old == nil {
		return fmt.Errorf("%w: the mapping in force of agency %s is not known", ErrNotAddition, m.agency)
	}
	for r := range old.Rows() {
		now, ok := m.Mailbox(r.Mailbox)
		if !ok {
			return fmt.Errorf("%w: mailbox %s (%s) would go", ErrNotAddition, r.Mailbox, r.Addresses[0])
		}
		for _, a := range r.Addresses {
			if !slices.Contains(now.Addresses, a) {
				return fmt.Errorf("%w: mailbox %s would lose the address %s", ErrNotAddition, r.Mailbox, a)
			}
		}
		for _, l := range r.Logins {
			if !slices.Contains(now.Logins, l) {
				return fmt.Errorf("%w: mailbox %s would lose the login %s", ErrNotAddition, r.Mailbox, l)
			}
		}
		for _, target := range []bool{false, true} {
			if was, is := r.At(target), now.At(target); was != is {
				return fmt.Errorf("%w: mailbox %s would be %+v on a platform instead of %+v", ErrNotAddition, r.Mailbox, is, was)
			}
		}
	}
	if separator == "" || !strings.Contains(m.text, separator) {
		return nil
	}
	for r := range m.Rows() {
		for _, key := range r.Keys() {
			if err := s.CheckDetail(Address(key), r.Mailbox, slices.Contains(r.Addresses, Address(key)), separator); err != nil {
				return fmt.Errorf("mailbox %s: %w", r.Mailbox, err)
			}
		}
	}
	return nil
}

// Keys returns the names under which the mailbox is known, in whatever role: addresses, logins, and
// those by which a platform knows it. One may stand twice.
func (r *Row) Keys() []string {
	keys := make([]string, 0, len(r.Addresses)+len(r.Logins)+4)
	for _, a := range r.Addresses {
		keys = append(keys, string(a))
	}
	for _, l := range r.Logins {
		keys = append(keys, string(l))
	}
	for _, p := range []Place{r.Source, r.Target} {
		if p.Address != "" {
			keys = append(keys, string(p.Address))
		}
		if l, err := ParseLogin(p.Login); err == nil {
			keys = append(keys, string(l))
		}
	}
	return keys
}
