package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// newMailboxCommand returns the commands about mailboxes.
func newMailboxCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "mailbox", Short: "Mailboxes: import a list, list, show, release a name"}
	var agency string
	list := c.command(&cobra.Command{Use: "list --agency AGENCY", Short: "An agency's mailboxes, by directory id", Args: cobra.NoArgs},
		func(cmd *cobra.Command, client *admin.Client, _ []string) error {
			all := []admin.Mailbox{}
			for after := ""; ; {
				page, err := client.Mailboxes(cmd.Context(), agency, after)
				if err != nil {
					return err
				}
				all = append(all, page.Mailboxes...)
				if after = page.Next; after == "" {
					break
				}
			}
			return c.show(cmd, all, func(w io.Writer) {
				var rows [][]string
				for _, m := range all {
					rows = append(rows, []string{m.Addresses[0], m.ID, m.Kind, strings.Join(m.Addresses[1:], " "), strings.Join(m.Logins, " ")})
				}
				table(w, []string{"ADDRESS", "DIRECTORY ID", "KIND", "ALIASES", "LOGINS"}, rows)
			})
		})
	list.Flags().StringVar(&agency, "agency", "", "the agency (required)")
	require(list, "agency")
	show := c.command(&cobra.Command{Use: "show DIRECTORY-ID|ADDRESS|LOGIN", Short: "One mailbox", Args: cobra.ExactArgs(1)},
		func(cmd *cobra.Command, client *admin.Client, args []string) error {
			m, err := client.Mailbox(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.show(cmd, m, func(w io.Writer) { printMailbox(w, m) })
		})
	cmd.AddCommand(newMailboxImport(c), list, show, newMailboxRelease(c))
	return cmd
}

func printMailbox(w io.Writer, m admin.Mailbox) {
	at := func(p admin.Place) string { return fmt.Sprintf("%s on %s, login %s", p.Address, p.Platform, p.Login) }
	pairs(w, [2]string{"mailbox", m.ID}, [2]string{"agency", m.Agency}, [2]string{"kind", m.Kind}, [2]string{"address", m.Addresses[0]},
		[2]string{"aliases", strings.Join(m.Addresses[1:], " ")}, [2]string{"logins", strings.Join(m.Logins, " ")},
		[2]string{"source", at(m.Source)}, [2]string{"target", at(m.Target)})
}

func newMailboxRelease(c *connection) *cobra.Command {
	var r admin.Release
	cmd := c.command(&cobra.Command{
		Use: "release NAME", Short: "Take a name that two claim from one of them", Args: cobra.ExactArgs(1),
		Long: "Take an address or a login that two claim from one of them: from an agency's mailbox, or\n" +
			"with --fixed from the fixed address. Nobody gets mail under such a name, so nothing that\n" +
			"works is lost. A mailbox of which others have every name goes as a whole. Unless in a lab, it\n" +
			"is proposed, and another person approves it; the same command then does it.",
		Example: "  mailcutover mailbox release dora@health.example --agency police --reason 'imported by mistake'",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		r.Name = args[0]
		alone, err := c.alone(cmd, client)
		if err != nil {
			return err
		}
		if !alone {
			return c.propose(cmd, client, admin.NewProposal{Kind: "release-name", Release: &r.ReleasedName, Reason: r.Reason}, unasked)
		}
		done, err := client.Release(cmd.Context(), r)
		if err != nil {
			return err
		}
		return c.show(cmd, done, func(w io.Writer) {
			fmt.Fprintf(w, "%s belongs to %s, in revision %d\n", printable(done.Name), printable(strings.Join(done.Claims, ", and ")), done.Revision)
			fmt.Fprintln(w, "undo: there is none; no import gives a name to two")
		})
	})
	cmd.Flags().StringVar(&r.Agency, "agency", "", "agency whose mailbox gives the name up")
	cmd.Flags().BoolVar(&r.Fixed, "fixed", false, "the fixed address gives the name up")
	addReason(cmd, &r.Reason)
	cmd.MarkFlagsOneRequired("agency", "fixed")
	cmd.MarkFlagsMutuallyExclusive("agency", "fixed")
	return cmd
}

func newMailboxImport(c *connection) *cobra.Command {
	var reason string
	var dryRun, remap, yes bool
	cmd := c.command(&cobra.Command{
		Use: "import FILE.csv", Short: "Add the mailboxes and fixed addresses of a list", Args: cobra.ExactArgs(1),
		Long: "Add the mailboxes and fixed addresses of a list: CSV in UTF-8 with comma or semicolon.\n" +
			"It is stored as a whole or refused as a whole, with each row that is wrong. It only adds.\n" +
			"Only a lab takes it: elsewhere mailboxes come by lists that people have approved.\n\n" +
			"With --remap a list may change answers: a row then says all that its mailbox has, and in\n" +
			"which agency it is; mailboxes without a row stay as they are. The agencies concerned must\n" +
			"be armed. Where others have to approve, it is proposed; said again with the same list, what\n" +
			"was approved is started.",
		Example: "  mailcutover mailbox import health.csv --reason 'wave 3'\n" +
			"  mailcutover mailbox import moved.csv --remap --dry-run --reason 'change 4711'",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		f, err := openList(args[0], "CSV")
		if err != nil {
			return err
		}
		defer f.Close()
		if remap {
			return c.remap(cmd, client, f, reason, dryRun, yes)
		}
		done, err := client.Import(cmd.Context(), f, reason, dryRun)
		if err != nil {
			return err
		}
		return c.show(cmd, done, func(w io.Writer) { printImported(w, done) })
	})
	addReason(cmd, &reason)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only check the list; with --remap, show what would change")
	cmd.Flags().BoolVar(&remap, "remap", false, "change answers too: begin, drain, commit, publish of all agencies concerned")
	cmd.Flags().BoolVar(&yes, "yes", false, "with --remap: don't ask on a terminal")
	return cmd
}

// openList opens a file that a node gets the content of. One without content is refused here:
// somebody who names a folder, or a file that nothing was written to, hasn't a list.
func openList(path, kind string) (*os.File, error) {
	hint := "name a " + kind + " file that exists here; the node gets its content"
	f, err := os.Open(path)
	if err != nil {
		return nil, withHint(fmt.Errorf("list: %w", err), hint)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("list: %w", err)
	case info.IsDir():
		err = withHint(fmt.Errorf("list: %s is a directory", path), hint)
	case info.Mode().IsRegular() && info.Size() == 0:
		err = withHint(fmt.Errorf("list: %s is empty", path), hint)
	default:
		return f, nil
	}
	_ = f.Close() // nothing was written
	return nil, err
}

func printImported(w io.Writer, done admin.Imported) {
	var rows [][]string
	for _, a := range done.Agencies {
		rows = append(rows, []string{a.Agency, strconv.Itoa(a.Added), strconv.Itoa(a.Extended), strconv.Itoa(a.Unchanged), strconv.Itoa(a.Mailboxes)})
	}
	if f := done.Fixed; f.Added+f.Unchanged > 0 {
		rows = append(rows, []string{"(fixed addresses)", strconv.Itoa(f.Added), "0", strconv.Itoa(f.Unchanged), ""})
	}
	table(w, []string{"AGENCY", "ADDED", "EXTENDED", "UNCHANGED", "MAILBOXES NOW"}, rows)
	if done.DryRun {
		fmt.Fprintln(w, "dry run: the list is right; nothing was stored")
		return
	}
	if !changed(done) {
		fmt.Fprintf(w, "nothing new: the table has all of it, and stays at revision %d\n", done.Revision)
		return
	}
	fmt.Fprintf(w, "stored in revision %d\n", done.Revision)
	fmt.Fprintln(w, "undo: there is none; a list only adds, and no name that was known got another meaning")
}

// changed reports whether a list had something new.
func changed(done admin.Imported) bool {
	n := done.Fixed.Added
	for _, a := range done.Agencies {
		n += a.Added + a.Extended
	}
	return n > 0
}
