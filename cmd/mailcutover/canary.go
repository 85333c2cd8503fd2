package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"mailcutover/admin"
)

// newCanaryCommand returns the commands about canaries.
func newCanaryCommand(c *connection) *cobra.Command {
	cmd := &cobra.Command{Use: "canary", Short: "Messages and logins by which each node tries each agency: list"}
	cmd.AddCommand(c.command(&cobra.Command{
		Use: "list", Short: "What the canaries of all nodes found last", Args: cobra.NoArgs,
		Long: "What the canaries of all nodes found last: a message to a mailbox of each agency and a login to\nit, through the node's own listeners (operations.canaries).",
	}, func(cmd *cobra.Command, client *admin.Client, _ []string) error {
		list, err := client.Canaries(cmd.Context())
		if err != nil {
			return err
		}
		return c.show(cmd, list, func(w io.Writer) {
			var rows [][]string
			for _, t := range list {
				result := "well"
				if !t.OK {
					result = fmt.Sprintf("failed %d times", t.Failures)
				}
				after := t.Reaction
				if after != "" && !t.Reacted {
					after += " (to come)"
				}
				rows = append(rows, []string{t.Agency, t.Node, t.Time.UTC().Format(time.RFC3339), t.Platform, result, after, t.Text})
			}
			table(w, []string{"AGENCY", "NODE", "TIME", "PLATFORM", "RESULT", "FOLLOWED", "WHAT"}, rows)
		})
	}))
	return cmd
}
