"""`make deploy-check`: check every deployment artefact against its rules, offline."""
