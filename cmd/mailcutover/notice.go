package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"mailcutover/admin"
	"mailcutover/notice"
	"mailcutover/notice/letter"
)

// newNoticeCommand returns the commands about who is told of events.
func newNoticeCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "notice", Short: "Who is told of events, by webhooks and mail"}
	templates := &cobra.Command{Use: "templates", Short: "The texts of mail about events"}
	templates.AddCommand(newTemplatesCheck(c), newTemplatesWrite())
	cmd.AddCommand(newNoticeList(c), newNoticeQueue(c), newNoticeTest(c), newNoticeEvents(c), templates)
	return cmd
}

func newNoticeList(c *connection) *cobra.Command {
	return c.command(&cobra.Command{
		Use: "list", Short: "The webhooks and the mail that are configured, and what they want", Args: cobra.NoArgs,
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		all, err := client.Notices(cmd.Context())
		if err != nil {
			return err
		}
		return c.show(cmd, all, func(w io.Writer) {
			if len(all.Channels) == 0 {
				fmt.Fprintf(w, "node %s tells nobody of events; notices.webhooks and notices.mail in its configuration do\n", all.Node)
				return
			}
			var rows [][]string
			for _, n := range all.Channels {
				rows = append(rows, []string{n.Name, n.Kind, n.To, firstOf(strings.Join(n.Events, " "), "all"), firstOf(strings.Join(n.Agencies, " "), "all")})
			}
			table(w, []string{"NAME", "KIND", "TO", "EVENTS", "AGENCIES"}, rows)
		})
	})
}

func newNoticeQueue(c *connection) *cobra.Command {
	return c.command(&cobra.Command{
		Use: "queue", Short: "What of events each webhook and mail hasn't got yet, and why", Args: cobra.NoArgs,
		Long: "Says what waits on the node that is asked. Of the table's events one node tells, TELLER; of its own\nalarms each node tells.",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		all, err := client.Notices(cmd.Context())
		if err != nil {
			return err
		}
		return c.show(cmd, all, func(w io.Writer) {
			var rows [][]string
			for _, n := range all.Channels {
				rows = append(rows, []string{n.Name, strconv.Itoa(n.Waiting), local(n.Oldest), strconv.FormatUint(n.Told, 10), local(n.Sent), strconv.Itoa(n.Failures), local(n.Next), n.Teller, n.Error})
			}
			table(w, []string{"NAME", "WAITING", "OLDEST", "TOLD", "LAST", "FAILURES", "NEXT", "TELLER", "ERROR"}, rows)
		})
	})
}

func newNoticeTest(c *connection) *cobra.Command {
	var reason string
	cmd := c.command(&cobra.Command{
		Use: "test NAME", Short: "Send a webhook or mail an event that says only that somebody tries", Args: cobra.ExactArgs(1),
		Long:    "Sends the event notice.test from the node that is asked, at once and once, past what waits. Done\nmeans that the receiver has it.",
		Example: "  mailcutover notice test night-shift --reason \"does it arrive?\"",
	}, func(cmd *cobra.Command, client *admin.Client, args []string) error {
		v, err := client.TestNotice(cmd.Context(), args[0], reason)
		if err != nil {
			return err
		}
		return c.show(cmd, v, func(w io.Writer) {
			fmt.Fprintf(w, "%s has the event %s, sent by node %s\n", printable(v.Channel), v.Event, v.Node)
		})
	})
	addReason(cmd, &reason)
	return cmd
}

func newNoticeEvents(c *connection) *cobra.Command {
	cmd := &cobra.Command{
		Use: "events", Short: "All types of events; no node is asked", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			type about struct {
				Type     notice.Type     `json:"type"`
				Severity notice.Severity `json:"severity"`
				English  string          `json:"english"`
				German   string          `json:"german"`
				Data     []string        `json:"data"`
			}
			var all []about
			var rows [][]string
			for _, a := range notice.Types() {
				all = append(all, about(a))
				rows = append(rows, []string{string(a.Type), string(a.Severity), a.English, strings.Join(a.Data, " ")})
			}
			return c.show(cmd, all, func(w io.Writer) { table(w, []string{"TYPE", "SEVERITY", "SAYS", "DATA"}, rows) })
		},
	}
	return cmd
}

func newTemplatesCheck(c *connection) *cobra.Command {
	return &cobra.Command{
		Use: "check DIRECTORY", Short: "Try the templates of a directory with all types of events; no node is asked", Args: cobra.ExactArgs(1),
		Long: "Looks at en.txt and de.txt of a directory, writes letters about all types of events with them, and\nsays what is wrong. A node that is configured with templates that don't pass doesn't start.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := letter.ReadTemplates(args[0]); err != nil {
				return withHint(err, "mailcutover notice templates write DIRECTORY writes those of the program")
			}
			return c.show(cmd, map[string]string{"directory": args[0]}, func(w io.Writer) {
				fmt.Fprintf(w, "the templates in %s can write about all %d types of events\n", printable(args[0]), len(notice.Types()))
			})
		},
	}
}

func newTemplatesWrite() *cobra.Command {
	return &cobra.Command{
		Use: "write DIRECTORY", Short: "Write the program's own templates, to begin with; no node is asked", Args: cobra.ExactArgs(1),
		Long: "Writes en.txt and de.txt into a directory, which is made if it isn't there. Files that are\nthere stay as they are, and are an error.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("make the directory of the templates: %w", err)
			}
			names, err := letter.WriteBuiltIn(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "written: %s\nundo: remove them\n", printable(strings.Join(names, ", ")))
			return nil
		},
	}
}
