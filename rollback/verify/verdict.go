package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"mailcutover/routing"
)

// judge judges the evidence, mailbox by mailbox, and completes the report's findings.
func (r *run) judge(ctx context.Context) error {
	pairs := make(map[uint32][]int) // mailboxes and their findings that have an owner
	for part := range partitions {
		if err := ctx.Err(); err != nil {
			return err
		}
		all := make([]evidence, 0, r.evidences.count(part))
		err := r.evidences.each(part, func(b []byte) {
			var e evidence
			e.read(b)
			all = append(all, e)
		})
		if err != nil {
			return err
		}
		slices.SortStableFunc(all, func(a, b evidence) int { return cmp.Compare(a.holder, b.holder) })
		for len(all) > 0 {
			i := all[0].holder
			n := slices.IndexFunc(all, func(e evidence) bool { return e.holder != i })
			if n < 0 {
				n = len(all)
			}
			r.judgeOne(i, all[:n], pairs)
			all = all[n:]
		}
	}
	if err := r.total(ctx, pairs); err != nil {
		return err
	}
	displaced := make(map[routing.MailboxID]bool) // whose content lies elsewhere: that says enough
	for i := range r.report.Findings {
		if f := &r.report.Findings[i]; f.Kind == Crossed {
			displaced[f.Owner] = true
		}
	}
	for i := range r.worst {
		// Where not all mailboxes are read it isn't known whose content lies elsewhere.
		partly := len(displaced) > 0 && (r.o.Sample > 0 || len(r.o.Only) > 0)
		if f := &r.worst[i]; f.Kind != Missing || !partly && !displaced[f.Mailbox] {
			f.identify()
			r.report.Findings = append(r.report.Findings, *f)
		}
	}
	slices.SortFunc(r.report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Agency, b.Agency), cmp.Compare(a.Kind.rank(), b.Kind.rank()), cmp.Compare(a.Address, b.Address), cmp.Compare(a.ID, b.ID))
	})
	return nil
}

// judgeOne judges one mailbox. One that couldn't be compared to its end isn't judged.
func (r *run) judgeOne(i uint32, all []evidence, pairs map[uint32][]int) {
	box := r.book.at(i)
	if !box.compared {
		return
	}
	h := &holder{holds: box.holds, read: func(owner uint32) bool { return r.book.at(owner).read }}
	for _, v := range judge(h, all) {
		f := Finding{
			Kind: v.kind, Agency: box.agency, Mailbox: box.id, Address: r.o.Names.Primary(box.agency, box.id), Of: box.holds, Messages: v.n,
			Sure: v.score.strong, Late: v.score.strongLate + v.score.weakLate + v.score.addressedLate, Folders: r.folders(v.in),
		}
		if v.owner != none {
			owner := r.book.at(v.owner)
			f.Owner, f.OwnerAgency, f.OwnerAddress = owner.id, owner.agency, r.o.Names.Primary(owner.agency, owner.id)
			pairs[i] = append(pairs[i], len(r.report.Findings))
		}
		f.identify()
		r.report.Findings = append(r.report.Findings, f)
	}
}

// folders returns the names of folders with the most messages.
func (r *run) folders(in map[uint32]int) []string {
	order := make([]uint32, 0, len(in))
	for f := range in {
		order = append(order, f)
	}
	slices.SortFunc(order, func(a, b uint32) int { return cmp.Or(in[b]-in[a], cmp.Compare(a, b)) })
	var names []string
	for _, f := range order[:min(len(order), maxFolders)] {
		names = append(names, fmt.Sprintf("%s (%d)", clip(r.book.name(f)), in[f]))
	}
	return names
}

// clip bounds the name of a folder in a finding, which has to stay small.
func clip(name string) string {
	const most = 100
	if len(name) <= most {
		return name
	}
	return strings.ToValidUTF8(name[:most], "") + "..."
}

// total counts for each finding with an owner all messages that stand with that owner, also
// those that so many have that they are no evidence, and tells them one by one.
func (r *run) total(ctx context.Context, pairs map[uint32][]int) error {
	counts := make([]int, len(r.report.Findings))
	for part := range partitions {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(pairs) == 0 || r.suspects.count(part) == 0 {
			continue
		}
		all, err := r.standingsOf(part)
		if err != nil {
			return err
		}
		err = r.suspects.each(part, func(b []byte) {
			var s suspect
			s.read(b)
			if len(pairs[s.holder]) == 0 {
				return
			}
			stands := holders(all, &s)
			for _, n := range pairs[s.holder] {
				f := &r.report.Findings[n]
				owner := r.book.index(f.Owner, f.OwnerAgency)
				_, with := slices.BinarySearchFunc(stands, owner, func(one standing, owner uint32) int { return cmp.Compare(one.mailbox, owner) })
				if with || len(stands) == 0 && s.names(owner) {
					counts[n]++
					r.tell(f, &s)
				}
			}
		})
		if err != nil {
			return err
		}
	}
	for n, count := range counts {
		r.report.Findings[n].Messages = max(r.report.Findings[n].Messages, count)
	}
	return nil
}

// tell hands on one message of a finding.
func (r *run) tell(f *Finding, s *suspect) {
	if r.o.Messages != nil {
		r.o.Messages(Message{Finding: f.ID, Address: f.Address, Folder: r.book.name(s.folder), UID: s.uid, Key: s.key.String()})
	}
}

// alone notes findings that need no other mailbox. The caller holds the lock.
func (r *run) alone(c *comparing, out *Comparison) {
	f := Finding{Agency: out.Agency, Mailbox: out.Mailbox, Address: out.Address}
	if n := out.Counts.Clashes; n > 0 {
		f.Kind, f.Messages, f.Of = Clash, int(n), int(out.Counts.Target)
		f.Folders = worstFolders(out.Folders, func(c *Counts) int64 { return c.Clashes })
		r.worst = append(r.worst, f)
	}
	if n := out.Counts.Missing; n > 0 && !c.agency.Since.IsZero() && 100*n >= missingShare*out.Counts.Source {
		f.Kind, f.Messages, f.Of = Missing, int(n), int(out.Counts.Source)
		f.Folders = worstFolders(out.Folders, func(c *Counts) int64 { return c.Missing })
		r.worst = append(r.worst, f)
	}
}

// worstFolders returns the names of the folders with the highest counts.
func worstFolders(folders []FolderCounts, of func(*Counts) int64) []string {
	order := slices.Clone(folders)
	slices.SortStableFunc(order, func(a, b FolderCounts) int { return cmp.Compare(of(&b.Counts), of(&a.Counts)) })
	var names []string
	for i := range order[:min(len(order), maxFolders)] {
		if n := of(&order[i].Counts); n > 0 {
			names = append(names, fmt.Sprintf("%s (%d)", clip(cmp.Or(order[i].Target, order[i].Source)), n))
		}
	}
	return names
}
