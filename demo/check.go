package demo

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// span is a switch as the operator saw it: asked for, and reported done.
type span struct {
	from, to   string // platforms
	began, end time.Time
}

// result is the comparison for one agency.
type result struct {
	sent, right, wrong, lost, duplicates int
}

func (r *result) broken() bool { return r.wrong+r.lost+r.duplicates > 0 }

// compare holds what the MX saw answered with 250 against what the platforms stored. A
// copy is right if it lies in the mailbox that it was sent to, on the platform that held
// it then: before a switch was asked for, the one; after it was reported done, the
// other; in between either, but never the losing one after the winning one.
func compare(all []mailbox, taken []accepted, stored []delivery, switches []span) (byAgency map[string]*result, examples []string) {
	var strays []string // the worst first
	type key struct {
		id   int
		rcpt string
	}
	found := make(map[key][]delivery)
	last := map[int]time.Time{} // by switch: latest copy on the losing side
	owner := make(map[string]*mailbox)
	for i := range all {
		for _, at := range all[i].at {
			owner[at] = &all[i]
		}
	}
	for _, d := range stored {
		m := owner[d.rcpt]
		if m == nil || m.at[d.platform] != d.rcpt {
			examples = append(examples, fmt.Sprintf("message %d lies on %s under %q, which isn't an address of that platform", d.id, d.platform, d.rcpt))
			continue
		}
		found[key{d.id, m.address}] = append(found[key{d.id, m.address}], d)
		for i, s := range switches {
			if m.agency == moved && d.platform == s.from && !d.at.Before(s.began) && !d.at.After(s.end) && d.at.After(last[i]) {
				last[i] = d.at
			}
		}
	}
	byAgency = make(map[string]*result)
	for _, a := range agencies {
		byAgency[a.id] = new(result)
	}
	for _, t := range taken {
		r := byAgency[t.mailbox.agency]
		r.sent++
		k := key{t.id, t.mailbox.address}
		copies := found[k]
		delete(found, k)
		switch {
		case len(copies) == 0:
			r.lost++
			examples = append(examples, fmt.Sprintf("message %d for %s was answered 250 and is nowhere", t.id, t.mailbox.address))
			continue
		case len(copies) > 1:
			r.duplicates += len(copies) - 1
			examples = append(examples, fmt.Sprintf("message %d for %s is there %d times", t.id, t.mailbox.address, len(copies)))
		}
		if why := misplaced(copies[0], t.mailbox, switches, last); why != "" {
			r.wrong++
			examples = append(examples, fmt.Sprintf("message %d for %s: %s", t.id, t.mailbox.address, why))
			continue
		}
		r.right++
	}
	for k, copies := range found {
		r := byAgency[owner[copies[0].rcpt].agency]
		r.wrong += len(copies)
		strays = append(strays, fmt.Sprintf("message %d lies in the mailbox of %s, for whom no 250 was given", k.id, k.rcpt))
	}
	return byAgency, append(strays, examples...)
}

// misplaced says why a copy is on the wrong platform, or nothing.
func misplaced(d delivery, m *mailbox, switches []span, last map[int]time.Time) string {
	if m.agency != moved {
		if d.platform != source {
			return "it is on " + d.platform + ", its agency was never moved"
		}
		return ""
	}
	holds := source
	for i, s := range switches {
		if d.at.Before(s.began) {
			break
		}
		if !d.at.After(s.end) {
			if d.platform == s.to && d.at.Before(last[i]) {
				return "it reached " + s.to + " while " + s.from + " still took mail"
			}
			return ""
		}
		holds = s.to
	}
	if d.platform != holds {
		return fmt.Sprintf("it reached %s at %s, when %s held the mailbox", d.platform, d.at.Format("15:04:05.000"), holds)
	}
	return ""
}

// tell prints the comparison and returns whether every promise was kept.
func tell(w io.Writer, byAgency map[string]*result, examples, refused []string) bool {
	kept := len(refused) == 0 && len(examples) == 0
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "agency\tsent\ton the right platform\ton the wrong one\tlost\tduplicates\t")
	var sum result
	for _, a := range agencies {
		r := byAgency[a.id]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t\n", a.id, r.sent, r.right, r.wrong, r.lost, r.duplicates)
		sum.sent += r.sent
		sum.right += r.right
		sum.wrong += r.wrong
		sum.lost += r.lost
		sum.duplicates += r.duplicates
		kept = kept && !r.broken()
	}
	fmt.Fprintf(t, "all\t%d\t%d\t%d\t%d\t%d\t\n", sum.sent, sum.right, sum.wrong, sum.lost, sum.duplicates)
	_ = t.Flush()
	for _, list := range [][]string{refused, examples} {
		for i, line := range list {
			if i == 5 {
				fmt.Fprintf(w, "  ... and %d more\n", len(list)-i)
				break
			}
			fmt.Fprintln(w, "  "+line)
		}
	}
	return kept && sum.sent > 0
}
