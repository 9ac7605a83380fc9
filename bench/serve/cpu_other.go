//go:build !unix

package main

import "time"

func (s *server) spent() time.Duration { return 0 }

func spentHere() time.Duration { return 0 }
