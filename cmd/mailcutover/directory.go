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
	cmd.AddCommand(look("show", "What the node has read, and what is wrong in it", false), look("check", "Read the directories now", true), find, crossings, newMembers(c))
	return cmd
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
