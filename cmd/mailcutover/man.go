package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newManCommand writes the manual pages, for the package.
func newManCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIRECTORY",
		Short: "Write the manual pages of all commands",
		Long: "Write the manual pages of all commands into a directory that exists, made from the same texts\n" +
			"as --help. Their date is that of SOURCE_DATE_EPOCH (seconds), or none.",
		Hidden:                true,
		Args:                  cobra.ExactArgs(1),
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			date := time.Unix(0, 0).UTC()
			if s := os.Getenv("SOURCE_DATE_EPOCH"); s != "" {
				var seconds int64
				if _, err := fmt.Sscan(s, &seconds); err != nil {
					return fmt.Errorf("SOURCE_DATE_EPOCH %q: want seconds since 1970: %w", s, err)
				}
				date = time.Unix(seconds, 0).UTC()
			}
			root.DisableAutoGenTag = true
			header := &doc.GenManHeader{Section: "1", Source: "mailcutover " + version().Version, Manual: "mailcutover", Date: &date}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			return nil
		},
	}
}
