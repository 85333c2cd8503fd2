package desk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/watch"
	"mailcutover/routing"
)

// ErrUnproven is wrapped by the error of [Desk.Absent] where nothing is proven.
var ErrUnproven = watch.ErrUnproven

// Found is an object of a directory that was asked just now.
type Found struct {
	Directory string
	Object    directory.Object
	Agency    routing.AgencyID // that the model counts it to; empty: none
}

// HasMailbox reports whether the object has a mailbox, as far as an address shows it: an object
// whose mailbox was taken away stays in the directory without one. What couldn't be read in it may
// be one.
func (f *Found) HasMailbox() bool { return len(f.Object.Addresses) > 0 || len(f.Object.Problems) > 0 }

// Find asks all directories for an address, a directory id, a login, a DN or an X.500 name.
// What a directory that couldn't be asked has, the error leaves open.
func (d *Desk) Find(ctx context.Context, name string) ([]Found, error) {
	q := query(name)
	var out []Found
	var errs []error
	for _, dir := range []directory.Directory{d.o.Source, d.o.Target} {
		if dir == nil {
			continue
		}
		objects, err := dir.Find(ctx, q)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, o := range objects {
			out = append(out, Found{Directory: dir.Name(), Object: o, Agency: d.o.Model.Agency(&o)})
		}
	}
	return out, errors.Join(errs...)
}

// query tells what a name is by its form.
func query(name string) directory.Query {
	name = strings.TrimSpace(name)
	if strings.HasPrefix(name, "/") {
		return directory.Query{X500: name}
	}
	if x500, ok := directory.Decapsulate(name); ok {
		return directory.Query{X500: x500}
	}
	if id, err := directory.ParseID(name); err == nil {
		return directory.Query{ID: id}
	}
	if a, err := routing.ParseAddress(name); err == nil {
		return directory.Query{Address: a}
	}
	if strings.Contains(name, "=") {
		return directory.Query{DN: name}
	}
	return directory.Query{Login: name}
}

// Absent returns nil only if it is proven that nobody has an address, with its detail or
// without: its domain is complete in the table, the table doesn't know it, and neither did
// the directory's last reading, nor does the directory now (docs/architecture/promises.md,
// P5). It waits for two seconds at most.
func (d *Desk) Absent(ctx context.Context, a routing.Address) error {
	state := d.o.State()
	domain, served := state.Domain(a.Domain())
	switch {
	case !served || !domain.Complete:
		return fmt.Errorf("%w: domain %s isn't complete in the table", ErrUnproven, a.Domain())
	case state.DecideAddress(a, d.o.Separator).Reason != routing.ReasonNoSuchName:
		return fmt.Errorf("%w: the table has it, or doesn't know", ErrUnproven)
	}
	if local, _ := a.Split(); directory.IsEncapsulated(local) {
		return fmt.Errorf("%w: an X.500 name, which a directory may know by another", ErrUnproven)
	}
	if err := d.watch.Absent(ctx, a); err != nil {
		return err
	}
	if base, ok := a.WithoutDetail(d.o.Separator); ok {
		return d.watch.Absent(ctx, base)
	}
	return nil
}

// Encapsulated returns the primary address of the mailbox that an address with an X.500 name
// in it means (IMCEAEX, as Exchange writes what it resolved before), by the directory's last
// reading and the table; ok is false if there is none.
func (d *Desk) Encapsulated(a routing.Address) (primary routing.Address, ok bool) {
	local, _ := a.Split()
	name, ok := directory.Decapsulate(local)
	if !ok {
		return "", false
	}
	id, ok := d.watch.X500(name)
	if !ok {
		return "", false
	}
	state := d.o.State()
	for _, agency := range state.Agencies() {
		if m := state.Mapping(agency.ID); m != nil {
			if row, found := m.Mailbox(id); found {
				if primary != "" {
					return "", false // two agencies have it
				}
				primary = row.Addresses[0]
			}
		}
	}
	return primary, primary != ""
}

// Holder returns the mailbox that has an address by the directory's last reading; ok is false if it is
// nobody's, two objects', or that of something that is no mailbox. The error says that the reading is
// too old.
func (d *Desk) Holder(a routing.Address) (id routing.MailboxID, ok bool, err error) {
	source, _, err := d.fresh()
	if err != nil {
		return id, false, err
	}
	if id, ok = source.Facts.Owner(a); !ok {
		return id, false, nil
	}
	o, _, ok := source.Mailbox(id)
	return id, ok && o.Kind.Mailbox(), nil
}

// Missing returns the addresses of a domain that the directory's last reading has and the table
// doesn't know, in order, and when it was read.
func (d *Desk) Missing(domain string) (missing []routing.Address, read time.Time, err error) {
	source, _, err := d.fresh()
	if err != nil {
		return nil, read, err
	}
	state := d.o.State()
	fixed := make(map[routing.Address]bool)
	for f := range state.FixedAddresses() {
		fixed[f.Address] = true
	}
	for a := range source.Facts.Addresses() {
		if a.Domain() == domain && !fixed[a] && len(state.Claims(string(a))) == 0 {
			missing = append(missing, a)
		}
	}
	slices.Sort(missing)
	return missing, source.Facts.At, nil
}
