package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailcutover/identity/desk"
	"mailcutover/internal/config"
	"mailcutover/rollback/hook"
	"mailcutover/rollback/operation"
	"mailcutover/routing"
)

// forwards reads back what hooks did to forwards, by the directories.
type forwards struct{ *Daemon }

// Goals implements hook.Forwards.
func (f forwards) Goals(agency routing.AgencyID) map[routing.MailboxID]routing.Address {
	if k := f.desk(); k != nil {
		return k.ForwardGoals(agency)
	}
	return nil
}

// directory returns the directory that shows the forwards of an agency on a platform, by the
// settings in force.
func (f forwards) directory(agency routing.AgencyID, platform routing.PlatformID) (*config.Directory, error) {
	a, ok := f.replica.State().Agency(agency)
	if !ok {
		return nil, fmt.Errorf("the table doesn't have agency %s", agency)
	}
	return f.config.Load().Identity.Forwards(agency, platform == a.Target)
}

// By implements hook.Forwards.
func (f forwards) By(agency routing.AgencyID, platform routing.PlatformID) (string, error) {
	dir, err := f.directory(agency, platform)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("by directory %s, for %s at most", dir.Name, dir.Replication), nil
}

// Await implements hook.Forwards.
func (f forwards) Await(ctx context.Context, agency routing.AgencyID, platform routing.PlatformID, on bool) (string, error) {
	dir, err := f.directory(agency, platform)
	if err != nil {
		return "", err
	}
	k := f.desk()
	if k == nil {
		return "", fmt.Errorf("forwards of agency %s: %w", agency, desk.ErrStale)
	}
	began := time.Now()
	found, err := k.AwaitForwards(ctx, desk.ForwardQuery{Agency: agency, Platform: platform, On: on}, dir.Replication)
	if err != nil {
		return "", err
	}
	what := "none leads back"
	if on {
		what = "all go to their coexistence addresses"
	}
	return fmt.Sprintf("read back by directory %s after %s: of %d mailboxes %s", found.Directory, time.Since(began).Round(time.Millisecond), found.Mailboxes, what), nil
}

// forwardsCheck says, before a switch, what the forwards are now that its hooks will change, and
// whether they can be read back.
type forwardsCheck struct{ *Daemon }

// checkForwards bounds the questions of one check.
const checkForwards = 10 * time.Second

// Check implements operation.Checker.
func (c forwardsCheck) Check(ctx context.Context, p *operation.Plan) []operation.Check {
	var all []operation.Check
	for i := range p.Hooks {
		h := &p.Hooks[i]
		if h.Point != operation.PointForward || h.Without {
			continue
		}
		for j := range p.Agencies {
			a := &p.Agencies[j]
			if h.Name != string(hook.ForwardOn)+"-"+string(a.Losing) {
				continue // what ends forwards finds those that are there
			}
			one := c.one(ctx, a.ID, a.Losing)
			one.Informs = one.Informs || p.Kind != operation.Cutover
			all = append(all, one)
		}
	}
	return all
}

// one says what forward-on will find. Only what it can't mend refuses: a mailbox without an address
// that a forward could go to, or one that the directory doesn't have, and a directory that can't be
// asked.
func (c forwardsCheck) one(ctx context.Context, agency routing.AgencyID, platform routing.PlatformID) operation.Check {
	const name = "forwards"
	if _, err := forwards(c).By(agency, platform); err != nil {
		return operation.Check{Name: name, Informs: true, Text: fmt.Sprintf("agency %s: forwards on %s are not read back: %v", agency, platform, err)}
	}
	k := c.desk()
	if k == nil {
		return operation.Failed(name, fmt.Errorf("forwards of agency %s: %w", agency, desk.ErrStale))
	}
	ctx, cancel := context.WithTimeout(ctx, checkForwards)
	defer cancel()
	found, err := k.Forwards(ctx, desk.ForwardQuery{Agency: agency, Platform: platform, On: true})
	if err != nil {
		return operation.Failed(name, err)
	}
	var lacks, others []string
	on := found.Mailboxes - len(found.Wrong)
	for i := range found.Wrong {
		switch f := &found.Wrong[i]; f.Fault {
		case desk.ForwardNowhere, desk.ForwardUnknown:
			lacks = append(lacks, desk.SayForward(f))
		case desk.ForwardElsewhere, desk.ForwardCopies:
			others = append(others, desk.SayForward(f))
		}
	}
	switch {
	case len(lacks) > 0:
		return operation.Failed(name, fmt.Errorf("agency %s: %d mailboxes can't be forwarded on %s: %s", agency, len(lacks), platform, some(lacks)))
	case len(others) > 0:
		return operation.Check{Name: name, Informs: true, Text: fmt.Sprintf(
			"agency %s: %d mailboxes on %s are forwarded by somebody else; forward-on has to take that away, or the step fails: %s", agency, len(others), platform, some(others))}
	}
	return operation.Passed(name, fmt.Sprintf("agency %s: directory %s shows forwards on %s: %d of %d go to their coexistence addresses now, and nothing else is forwarded", agency, found.Directory, platform, on, found.Mailboxes))
}

// some is the first of many texts.
func some(all []string) string {
	const most = 10
	if len(all) <= most {
		return strings.Join(all, "; ")
	}
	return strings.Join(append(slices.Clone(all[:most]), fmt.Sprintf("and %d more", len(all)-most)), "; ")
}
