package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// shownChanges is how many changes of an agency are printed.
const shownChanges = 20

// remap proposes to bring a list into force, or starts what was approved of it, or only
// shows what would change.
func (c *connection) remap(cmd *cobra.Command, client *admin.Client, list io.Reader, reason string, dryRun, yes bool) error {
	r, err := client.Remap(cmd.Context(), list, reason, dryRun)
	if err != nil {
		return err
	}
	switch {
	case dryRun:
		return c.show(cmd, r, func(w io.Writer) {
			printRemapping(w, r)
			fmt.Fprintln(w, "dry run: nothing was proposed")
			if ids := notArmed(r); len(ids) > 0 {
				fmt.Fprintf(w, "not armed: %s; before it is proposed: mailcutover agency arm %s --reason ...\n", strings.Join(ids, ", "), ids[0])
			}
		})
	case r.Proposal.Missing == 0:
		fmt.Fprintf(cmd.ErrOrStderr(), "proposal %s of %s is approved; starting it\n", r.Proposal.ID, printable(r.Proposal.Person))
		if !yes && isTerminal(cmd.InOrStdin()) {
			printRemapping(cmd.ErrOrStderr(), r)
			if err := typed(cmd.InOrStdin(), cmd.ErrOrStderr(), r.Proposal.Agency); err != nil {
				return err
			}
		}
		return c.start(cmd, client, r.Proposal.ID)
	default:
		return c.proposed(cmd, *r.Proposal, false)
	}
}

func notArmed(r admin.Remapping) (ids []string) {
	for _, a := range r.Agencies {
		if !a.Armed {
			ids = append(ids, a.Agency)
		}
	}
	return ids
}

// printRemapping prints the agencies, and of each the first changes.
func printRemapping(w io.Writer, r admin.Remapping) {
	var rows [][]string
	for _, a := range r.Agencies {
		rows = append(rows, []string{a.Agency, strconv.Itoa(a.Before), strconv.Itoa(a.After), strconv.Itoa(a.Added), strconv.Itoa(a.Gone), strconv.Itoa(a.Changed), strconv.Itoa(a.Names), strconv.Itoa(a.Taken)})
	}
	table(w, []string{"AGENCY", "MAILBOXES NOW", "THEN", "NEW TO IT", "TO OTHERS", "CHANGED", "NAMES AND PLACES", "TO NOBODY"}, rows)
	for _, a := range r.Agencies {
		shown := 0
		for _, n := range r.Changes {
			if n.Agency != a.Agency || shown == shownChanges {
				continue
			}
			if shown == 0 {
				fmt.Fprintf(w, "\nagency %s\n", printable(a.Agency))
			}
			fmt.Fprintf(w, "  %s\n", printable(fmt.Sprintf("%s %s: %s -> %s", n.What, n.Name, n.From, n.To)))
			shown++
		}
		if more := a.Names - shown; more > 0 {
			fmt.Fprintf(w, "  and %d more: --json has them all\n", more)
		}
	}
	fmt.Fprintln(w)
}
