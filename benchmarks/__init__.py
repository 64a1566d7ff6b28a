"""What geoflow costs, measured beside what else there is on the same machine. Not a part of the package."""
