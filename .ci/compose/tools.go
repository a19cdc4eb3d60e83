//go:build tools

// Package compose names what is built from it: the Compose plugin, whose own module can't be installed by version.
package compose

import _ "github.com/docker/compose/v5/cmd"
