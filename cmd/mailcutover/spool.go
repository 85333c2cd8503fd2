package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/spool"
)

// spoolPage is how many recipients are asked for at a time.
const spoolPage = 500

// newSpoolCommand returns the commands about the spool.
func newSpoolCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "spool", Short: "Held and waiting mail: status, list, show, hold, release, retry, drop, check, adopt"}
	cmd.AddCommand(newSpoolStatus(c), newSpoolList(c), newSpoolShow(c))
	cmd.AddCommand(newSpoolActs(c)...)
	cmd.AddCommand(newSpoolRate(c), newSpoolResume(c), newSpoolCheck(c), newSpoolAdopt(c))
	return cmd
}

func newSpoolStatus(c *connection) *cobra.Command {
	return c.command(&cobra.Command{Use: "status", Short: "How much lies in the spool, where it goes, and what is wrong", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			st, err := client.Spool(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(cmd, st, func(w io.Writer) { printSpool(w, st) })
		})
}

func printSpool(w io.Writer, st admin.SpoolStatus) {
	takes := "mail"
	if st.Refusing != "" {
		takes = "nothing: " + st.Refusing
	}
	pairs(w, [2]string{"spool", st.ID}, [2]string{"directory", st.Directory}, [2]string{"takes", takes}, [2]string{"oldest", local(st.Oldest)},
		[2]string{"journal", fmt.Sprintf("%d files, %s", st.Files, size(st.Disk))}, [2]string{"not on disk yet", count(st.Pending, "outcome", "outcomes")},
		[2]string{"ledger", st.LedgerError})
	row := func(name string, n admin.SpoolCount, oldest *time.Time, rate, left float64) []string {
		return []string{name, strconv.Itoa(n.Messages), size(n.Bytes), strconv.Itoa(n.Held), strconv.Itoa(n.Waiting), strconv.Itoa(n.Failed), strconv.Itoa(n.Expired),
			strconv.Itoa(n.Quarantined), local(oldest), perSecond(rate), forecast(left)}
	}
	var rows [][]string
	for _, a := range st.Agencies {
		name := a.Agency
		if name == "" {
			name = "(no agency)"
		}
		rows = append(rows, row(name, a.SpoolCount, a.Oldest, a.Rate, a.Left))
	}
	rows = append(rows, row("(all)", st.Total, st.Oldest, 0, 0))
	fmt.Fprintln(w)
	table(w, []string{"AGENCY", "MESSAGES", "SIZE", "HELD", "WAITING", "FAILED", "EXPIRED", "QUARANTINED", "OLDEST", "SENT/S", "LEFT"}, rows)
	rows = nil
	for _, l := range st.Lanes {
		limit, down := "none", ""
		if l.Rate > 0 {
			limit = perSecond(l.Rate)
		}
		if l.Down {
			down = "down: " + l.Error
			if l.Until != nil {
				down += ", asked again " + local(l.Until)
			}
		}
		rows = append(rows, []string{l.Platform, fmt.Sprintf("%d of %d", l.Running, l.Limit), strconv.Itoa(l.Ready), strconv.Itoa(l.Backlog), limit, perSecond(l.Sent), forecast(l.Left), down})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, []string{"PLATFORM", "UNDER WAY", "READY", "BACKLOG", "RATE LIMIT", "SENT/S", "LEFT", "STATE"}, rows)
	}
	for _, a := range st.Adoptions {
		fmt.Fprintf(w, "\nadopted %s, of node %s: %d of %d messages moved%s\n", printable(a.Directory), printable(a.From), a.Moved, a.Messages, printable(adoptionState(a)))
	}
	for _, f := range st.Quarantine {
		fmt.Fprintf(w, "quarantine: %s\n", printable(f))
	}
	if st.Removed > 0 {
		fmt.Fprintf(w, "quarantine: %d files removed for their age since the start\n", st.Removed)
	}
	for _, r := range st.Removals {
		fmt.Fprintf(w, "removed %s: %s, %s, set aside %s (%s)\n", local(&r.Time), printable(r.File), size(r.Bytes), local(&r.Aside), printable(r.Reason))
	}
	for _, p := range st.Problems {
		fmt.Fprintf(w, "found at the start: %s\n", printable(p))
	}
}

func adoptionState(a admin.Adoption) string {
	text := ""
	if a.Left > 0 {
		text += fmt.Sprintf(", %d damaged stay there", a.Left)
	}
	switch {
	case a.Error != "":
		text += "; ended early: " + a.Error
	case a.Waiting != "":
		text += "; waits: " + a.Waiting
	case a.Ended != nil:
		text += "; done"
	}
	return text
}

// count returns a number with the noun for one or for many; empty for none.
func count(n int, one, many string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// size returns a number of bytes with a unit that fits it.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}

func perSecond(rate float64) string {
	if rate < 0.01 {
		return ""
	}
	return strconv.FormatFloat(math.Round(rate*100)/100, 'f', -1, 64)
}

// forecast returns how long the rest takes, and when that is.
func forecast(left float64) string {
	if left <= 0 {
		return ""
	}
	end := time.Now().Add(time.Duration(left * float64(time.Second)))
	return seconds(left) + ", until " + end.Format("15:04")
}

// addFilter adds the flags that name mail in the spool.
func addFilter(cmd *cobra.Command, f *admin.SpoolFilter) {
	cmd.Flags().StringVar(&f.Agency, "agency", "", "mail of this agency")
	cmd.Flags().StringVar(&f.Mailbox, "mailbox", "", "mail for this directory id or address")
	cmd.Flags().Var((*spoolState)(&f.State), "state", "mail in this state: held, waiting, failed, expired or quarantined")
}

// spoolState is a flag for a state that mail in the spool may be in; empty: any.
type spoolState string

// String implements pflag.Value.
func (s *spoolState) String() string { return string(*s) }

// Type implements pflag.Value.
func (s *spoolState) Type() string { return "state" }

// Set implements pflag.Value.
func (s *spoolState) Set(text string) error {
	if state, err := spool.ParseState(text); err != nil || state.Final() {
		return errors.New("want held, waiting, failed, expired or quarantined")
	}
	*s = spoolState(text)
	return nil
}

func newSpoolList(c *connection) *cobra.Command {
	var f admin.SpoolFilter
	var limit int
	cmd := c.command(&cobra.Command{Use: "list", Short: "What lies in the spool, by recipient, in order of acceptance", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			if limit < 0 {
				return &usageError{err: fmt.Errorf("--limit %d: want a number of recipients, or 0 for all", limit), command: cmd.CommandPath()}
			}
			all := []admin.SpoolEntry{}
			more := false
			for after := ""; ; {
				want := spoolPage
				if limit > 0 {
					want = min(want, limit-len(all))
				}
				page, err := client.Spooled(cmd.Context(), f, after, want)
				if err != nil {
					return err
				}
				all = append(all, page.Messages...)
				if after = page.Next; after == "" {
					break
				}
				if more = limit > 0 && len(all) >= limit; more {
					break
				}
			}
			if more {
				fmt.Fprintf(cmd.ErrOrStderr(), "warning: there is more; these are the oldest %d (--limit)\n", len(all))
			}
			return c.show(cmd, all, func(w io.Writer) {
				var rows [][]string
				for _, e := range all {
					rows = append(rows, []string{local(&e.Time), e.Transaction, e.Agency, e.Address, e.State, size(e.Size), old(e.Time), local(e.Next), e.Reason})
				}
				table(w, []string{"ACCEPTED", "TRANSACTION", "AGENCY", "ADDRESS", "STATE", "SIZE", "AGE", "NEXT ATTEMPT", "REASON"}, rows)
			})
		})
	addFilter(cmd, &f)
	cmd.Flags().StringVar(&f.Transaction, "transaction", "", "this message")
	cmd.Flags().IntVar(&limit, "limit", 1000, "at most so many recipients, the oldest; 0: all")
	return cmd
}

// old returns how long ago a time is, in a unit that fits it.
func old(t time.Time) string {
	switch d := time.Since(t); {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	case d >= time.Minute:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		return d.Round(time.Second).String()
	}
}

func newSpoolShow(c *connection) *cobra.Command {
	return c.command(&cobra.Command{
		Use: "show TRANSACTION", Short: "One message of the spool: envelope and recipients, without content", Args: cobra.ExactArgs(1),
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		m, err := client.SpooledMessage(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return c.show(cmd, m, func(w io.Writer) { printMessage(w, m) })
	})
}

func printMessage(w io.Writer, m admin.SpoolMessage) {
	pairs(w, [2]string{"transaction", m.Transaction}, [2]string{"accepted", local(&m.Time) + ", " + old(m.Time) + " ago"}, [2]string{"from", "<" + m.From + ">"},
		[2]string{"message-id", m.MessageID}, [2]string{"size", size(m.Size)}, [2]string{"client", m.Client}, [2]string{"helo", m.Helo},
		[2]string{"listener", m.Listener}, [2]string{"session", m.Session}, [2]string{"ret", m.Return}, [2]string{"envid", m.EnvelopeID})
	var rows [][]string
	for _, r := range m.Recipients {
		answer := r.Reason
		if r.Code != 0 {
			answer = fmt.Sprintf("%d %s", r.Code, r.Reason)
		}
		rows = append(rows, []string{r.Address, r.Agency, r.Mailbox, r.State, strconv.Itoa(r.Attempts), r.Platform, local(r.Last), local(r.Next), strings.Join(r.Notify, ","), r.Original, answer})
	}
	fmt.Fprintln(w)
	table(w, []string{"RECIPIENT", "AGENCY", "MAILBOX", "STATE", "ATTEMPTS", "PLATFORM", "LAST ATTEMPT", "NEXT ATTEMPT", "NOTIFY", "ORCPT", "ANSWER OR REASON"}, rows)
}
