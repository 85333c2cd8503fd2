package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// newDirectoryCommand returns the commands about the directories.
func newDirectoryCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "directory", Short: "The directories: what was read, find a mailbox, what crosses the border"}
	look := func(use, short string, refresh bool) *cobra.Command {
		return c.command(&cobra.Command{Use: use, Short: short, Args: cobra.NoArgs},
			func(cmd *cobra.Command, client *admin.Client, _ []string) error {
				var d admin.Directories
				err := c.whileReading(cmd, client, refresh, func() (err error) {
					d, err = client.Directories(cmd.Context(), refresh)
					return err
				})
				if err != nil {
					return err
				}
				return c.show(cmd, d, func(w io.Writer) { printDirectories(w, d) })
			})
	}
	find := c.command(&cobra.Command{
		Use: "find NAME", Short: "Ask the directories for an address, a directory id, a login, a DN or an X.500 name", Args: cobra.ExactArgs(1),
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		found, err := client.FindInDirectory(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if err := c.show(cmd, found, func(w io.Writer) { printObjects(w, found) }); err != nil {
			return err
		}
		if found.Failed != "" {
			return withHint(fmt.Errorf("not every directory could be asked: %s", found.Failed), "what that one has isn't known")
		}
		return nil
	})
	crossings := c.command(&cobra.Command{
		Use: "crossings", Short: "Members, delegates and forwards between agencies on different platforms", Args: cobra.NoArgs,
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		all, err := client.Crossings(cmd.Context())
		if err != nil {
			return err
		}
		return c.show(cmd, all, func(w io.Writer) {
			var rows [][]string
			for _, one := range all {
				rows = append(rows, []string{one.What, one.From, one.FromAgency, one.To, one.ToAgency})
			}
			if len(rows) == 0 {
				fmt.Fprintln(w, "nothing crosses the border")
				return
			}
			table(w, []string{"WHAT", "FROM", "AGENCY", "TO", "AGENCY"}, rows)
		})
	})
	cmd.AddCommand(look("show", "What the node has read, and what is wrong in it", false), look("check", "Read the directories now", true), find, crossings, newMembers(c), newForwards(c))
	return cmd
}

// newForwards asks how an agency's mail is forwarded on its platforms.
func newForwards(c *connection) *cobra.Command {
	var agency string
	cmd := c.command(&cobra.Command{
		Use: "forwards", Short: "Ask how an agency's mailboxes are forwarded, and what of it is wrong", Args: cobra.NoArgs,
		Long: "Ask the directories, now, where the platforms forward the mail of an agency's mailboxes. On the\n" +
			"platform that the agency isn't on, each has to go to its coexistence address, if a hook sets\n" +
			"forwards there; on the one that it is on, none may lead back. The exit code is 1 if one is wrong.",
		Example: "  mailcutover directory forwards --agency health",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		f, err := client.Forwards(cmd.Context(), agency)
		if err != nil {
			return err
		}
		if err := c.show(cmd, f, func(w io.Writer) { printForwards(w, f) }); err != nil {
			return err
		}
		unread := 0
		for _, side := range f.Sides {
			if side.Unread != "" {
				unread++
			}
		}
		switch {
		case f.Wrong > 0:
			return withHint(fmt.Errorf("%d mailboxes of agency %s are not forwarded as they should be", f.Wrong, agency), "repair them on the platform; mailcutover changes no forwards but by its hooks")
		case unread == len(f.Sides):
			return fmt.Errorf("nobody knows how mail of agency %s is forwarded", agency)
		}
		return nil
	})
	cmd.Flags().StringVar(&agency, "agency", "", "the agency")
	require(cmd, "agency")
	return cmd
}

func printForwards(w io.Writer, f admin.Forwards) {
	for i, side := range f.Sides {
		if i > 0 {
			fmt.Fprintln(w)
		}
		what := "off: none may lead back to the mailbox itself"
		if side.Wanted == "on" {
			what = "on: each to its coexistence address"
		}
		fmt.Fprintf(w, "platform %s, wanted %s\n", printable(side.Platform), what)
		switch {
		case side.Unread != "":
			fmt.Fprintln(w, "  not known: "+printable(side.Unread))
			continue
		case side.Wrong == 0:
			fmt.Fprintf(w, "  all %d mailboxes are, by directory %s\n", side.Mailboxes, printable(side.Directory))
			continue
		}
		fmt.Fprintf(w, "  %d of %d mailboxes are not, by directory %s\n", side.Wrong, side.Mailboxes, printable(side.Directory))
		for _, one := range side.Forwards {
			fmt.Fprintf(w, "  %s\n", printable(one.Text))
		}
		if more := side.Wrong - len(side.Forwards); more > 0 {
			fmt.Fprintf(w, "  and %d more\n", more)
		}
	}
}

func newMembers(c *connection) *cobra.Command {
	var agency string
	var changes bool
	var since time.Duration
	cmd := c.command(&cobra.Command{
		Use: "members", Short: "Who is a member of which functional mailbox, or what changed in that", Args: cobra.NoArgs,
		Long: "Who is a member, or a delegate, of which functional mailbox, as the directory said when it was last\nread; with --changes who came and who went since --since.",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		var from time.Time
		if changes {
			from = time.Now().Add(-since)
		}
		m, err := client.Members(cmd.Context(), agency, from)
		if err != nil {
			return err
		}
		return c.show(cmd, m, func(w io.Writer) { printMembers(w, m, changes) })
	})
	cmd.Flags().StringVar(&agency, "agency", "", "only of this agency")
	cmd.Flags().BoolVar(&changes, "changes", false, "who came and who went")
	cmd.Flags().DurationVar(&since, "since", 7*24*time.Hour, "of --changes: how far back, such as 720h")
	return cmd
}

func printMembers(w io.Writer, m admin.Members, changes bool) {
	var rows [][]string
	if changes {
		for _, one := range m.Changes {
			rows = append(rows, []string{local(&one.Time), one.Agency, one.Address, one.Change, one.Member})
		}
		if len(rows) == 0 {
			fmt.Fprintln(w, "nobody came, and nobody went")
			return
		}
		table(w, []string{"SEEN", "AGENCY", "MAILBOX", "CHANGE", "MEMBER"}, rows)
		return
	}
	for _, one := range m.Mailboxes {
		for _, member := range one.Members {
			rows = append(rows, []string{one.Agency, firstOf(one.Address, one.ID), member})
		}
		if len(one.Members) == 0 {
			rows = append(rows, []string{one.Agency, firstOf(one.Address, one.ID), "nobody"})
		}
	}
	if len(rows) == 0 {
		fmt.Fprintln(w, "no functional mailbox with members is known")
		return
	}
	table(w, []string{"AGENCY", "MAILBOX", "MEMBER"}, rows)
}

func printDirectories(w io.Writer, d admin.Directories) {
	var rows [][]string
	for _, r := range d.Readings {
		rows = append(rows, []string{r.Directory, r.Server, local(&r.Began), seconds(r.AgeSeconds), seconds(r.Seconds), strconv.Itoa(r.Objects)})
	}
	table(w, []string{"DIRECTORY", "SERVER", "READ", "AGE", "TOOK", "OBJECTS"}, rows)
	if d.Failed != "" {
		fmt.Fprintf(w, "the last attempt failed at %s: %s\n", local(d.FailedAt), printable(d.Failed))
	}
	if d.Stale != "" {
		fmt.Fprintln(w, "no list can be checked: "+printable(d.Stale))
	}
	if len(d.Problems) > 0 {
		fmt.Fprintln(w)
		rows = nil
		for _, p := range d.Problems {
			rows = append(rows, []string{p.Agency, p.DN, p.Text})
		}
		table(w, []string{"AGENCY", "OBJECT", "PROBLEM"}, rows)
	}
}

func printObjects(w io.Writer, found admin.DirectoryObjects) {
	for i, o := range found.Objects {
		if i > 0 {
			fmt.Fprintln(w)
		}
		pairs(w, [2]string{"directory", o.Directory}, [2]string{"object", o.DN}, [2]string{"kind", o.Kind}, [2]string{"agency", o.Agency}, [2]string{"directory id", o.ID},
			[2]string{"addresses", strings.Join(o.Addresses, " ")}, [2]string{"upn", o.UPN}, [2]string{"account", o.Account}, [2]string{"forward", o.Forward},
			[2]string{"x.500", strings.Join(o.X500, " ")}, [2]string{"enabled", yesNo(o.Enabled)}, [2]string{"problems", strings.Join(o.Problems, "; ")})
	}
	if len(found.Objects) == 0 && found.Failed == "" {
		fmt.Fprintln(w, "no directory has it")
	}
}
